"""Small training states that take real steps, and their way into checkpoints."""

import torch

from plsc.conf import compose
from plsc.doorway import Stopwatch
from plsc.train.checkpoints import Checkpointer
from plsc.train.checkpoints.slots import slots
from plsc.train.head import HeadStep, Margin
from plsc.train.process_group import Ranks
from plsc.train.state import TrainState

CLASSES = 7
ALONE = Ranks(0, 1, torch.device("cpu"))


def configured(folder, *overrides, run_id="first"):
    return compose(
        "tiny",
        f"run_id={run_id}",
        f"store_uri={folder}",
        "image_size=16",
        "model.embedding_size=8",
        "train.keep_checkpoints=2",
        *overrides,
    )


def fresh(config, ranks=ALONE, classes=CLASSES):
    return TrainState.fresh(config, classes, ranks)


def stepped(state, ranks=ALONE, steps=2):
    """Take a few steps on batches that depend on the step alone."""
    for _ in range(steps):
        generator = torch.Generator().manual_seed(state.step)
        images = torch.randn(12, 3, 16, 16, generator=generator)
        labels = torch.randint(0, state.head.num_classes, (12,), generator=generator)
        size = 12 // ranks.world_size
        own = slice(ranks.rank * size, (ranks.rank + 1) * size)
        state.backbone.eval()  # batch statistics differ with the batch; weights must not
        step = HeadStep(state.step, lr=0.05, margin=Margin(m2=0.3))
        state.optimizer.zero_grad()
        state.head(state.backbone(images[own]), labels[own], step).loss.backward()
        for parameter in state.backbone.parameters():
            parameter.grad.copy_(ranks.gather(parameter.grad).mean(dim=0))
        state.head.reduce_gradients()
        state.optimizer.step()
        state.step += 1
    return state


def saved(state, config, ranks=ALONE, **figures):
    """Write a checkpoint of ``state`` and return its index."""
    with Checkpointer(config, ranks, Stopwatch()) as checkpointer:
        checkpointer.save(state, epoch=0, dataset_uri="x", figures=figures)
        return checkpointer.finish()


def copied(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def state_of(state):
    """Everything that a checkpoint of the state holds: backbone, and this rank's rows."""
    backbone = dict(state.backbone.state_dict()) | slots(state.optimizer, state.backbone)
    rows = state.head.state_rows() | slots(state.optimizer, state.head)
    return copied(backbone), copied(rows)
