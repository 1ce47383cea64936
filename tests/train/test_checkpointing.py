"""Checkpoints: any number of ranks to any number, exact resume, and what must be refused."""

import json

import pytest
import torch

from plsc import storage
from plsc.conf import compose
from plsc.doorway import Stopwatch
from plsc.errors import CheckpointError
from plsc.train import checkpointing
from plsc.train.process_group import Ranks
from plsc.train.state import TrainState
from tests.train.ranks import on_ranks

CLASSES = 7
ALONE = Ranks(0, 1, torch.device("cpu"))


def configured(folder, run_id="first", optimizer="adamw", loss="arcface"):
    return compose(
        "tiny",
        f"run_id={run_id}",
        f"store_uri={folder}",
        "image_size=16",
        "model.embedding_size=8",
        f"train.optimizer.name={optimizer}",
        f"train.head.loss={loss}",
        "train.keep_checkpoints=2",
    )


def stepped(state, ranks, steps=2):
    """Take a few optimizer steps on batches that depend on the step alone."""
    for _ in range(steps):
        generator = torch.Generator().manual_seed(state.step)
        images = torch.randn(12, 3, 16, 16, generator=generator)
        labels = torch.randint(0, CLASSES, (12,), generator=generator)
        size = 12 // ranks.world_size
        own = slice(ranks.rank * size, (ranks.rank + 1) * size)
        state.backbone.eval()  # batch statistics differ with the batch; weights must not
        loss = state.head(state.backbone(images[own]), labels[own], 0.3).loss
        state.optimizer.zero_grad()
        loss.backward()
        for parameter in state.backbone.parameters():
            gathered = ranks.gather(parameter.grad)
            parameter.grad.copy_(gathered.mean(dim=0))
        state.optimizer.step()
        state.step += 1


def written(ranks, folder, optimizer, loss):
    config = configured(folder, optimizer=optimizer, loss=loss)
    state = TrainState.fresh(config, CLASSES, ranks)
    stepped(state, ranks)
    checkpointing.save(
        state, config, ranks, Stopwatch(), epoch=0, dataset_uri="x", figures={"loss": 1.0}
    )
    stepped(state, ranks)
    return {name: p.detach().clone() for name, p in state.head.named_parameters()}


def gone_on(ranks, folder, optimizer, loss):
    config = configured(folder, optimizer=optimizer, loss=loss)
    state = TrainState.fresh(config, CLASSES, ranks)
    checkpointing.load(state, checkpointing.latest(config, "first"))
    assert state.step == 2
    stepped(state, ranks)
    return {name: p.detach().clone() for name, p in state.head.named_parameters()}


def joined_rows(outputs):
    return {name: torch.cat([o[name] for o in outputs]) for name in outputs[0]}


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "loss"), [("adamw", "arcface"), ("sgd", "softmax")])
def test_checkpoint_of_two_ranks_goes_on_with_any_number(tmp_path, optimizer, loss):
    case = [(str(tmp_path), optimizer, loss)]
    (expected,) = on_ranks(2, written, case)
    for world_size in (1, 2, 3):
        (found,) = on_ranks(world_size, gone_on, case)
        exact = {"rtol": 0, "atol": 0} if world_size == 2 else {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(joined_rows(found), joined_rows(expected), **exact)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of one rank, its configuration and its state."""
    config = configured(tmp_path)
    state = TrainState.fresh(config, CLASSES, ALONE)
    stepped(state, ALONE)
    checkpoint = save(state, config)
    return config, state, checkpoint


def save(state, config):
    return checkpointing.save(
        state, config, ALONE, Stopwatch(), epoch=0, dataset_uri="x", figures={}
    )


def test_altered_file_is_refused_and_named(saved):
    config, _, checkpoint = saved
    content = bytearray(storage.read_bytes(checkpoint.head[0].uri))
    content[-1] ^= 1
    storage.write_bytes(checkpoint.head[0].uri, bytes(content))
    state = TrainState.fresh(config, CLASSES, ALONE)
    with pytest.raises(
        CheckpointError, match=r"head-0000000000.safetensors was altered: .*SHA-256"
    ):
        checkpointing.load(state, checkpoint)


def test_checkpoint_of_other_classes_is_refused(saved):
    config, _, checkpoint = saved
    state = TrainState.fresh(config, CLASSES + 1, ALONE)
    with pytest.raises(CheckpointError, match="has num_classes 7, this run has 8"):
        checkpointing.load(state, checkpoint)


def test_checkpoint_that_lacks_a_block_is_refused(saved):
    config, _, checkpoint = saved
    state = TrainState.fresh(config, CLASSES, ALONE)
    with pytest.raises(CheckpointError, match=r"holds 0 of the classes 0\.\.6"):
        checkpointing.load(state, checkpoint.model_copy(update={"head": []}))


def test_folder_without_an_index_is_no_checkpoint(saved):
    config, state, checkpoint = saved
    state.step = 3
    later = save(state, config)
    storage.delete(later.backbone.uri.replace("backbone.safetensors", "index.json"))
    assert checkpointing.latest(config, "first") == checkpoint


def test_damaged_index_says_what_was_expected(saved):
    config, _, checkpoint = saved
    uri = checkpoint.backbone.uri.replace("backbone.safetensors", "index.json")
    document = json.loads(storage.read_bytes(uri))
    document["step"] = "many"
    storage.write_bytes(uri, json.dumps(document).encode())
    with pytest.raises(CheckpointError, match=r"index of kind Checkpoint, version 1, but step"):
        checkpointing.latest(config, "first")


def test_only_the_newest_checkpoints_are_kept(saved):
    config, state, _ = saved
    for state.step in (3, 4, 5):
        save(state, config)
    checkpointing.prune(config)
    folder = checkpointing.checkpoints_uri(config, "first")
    left = {info.uri.split("/")[-2] for info in storage.list_objects(folder)}
    assert left == {"step-00000004", "step-00000005"}
