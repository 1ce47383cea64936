"""One step of training: micro-batches, clipping, loss scaling, and what may not change."""

import math

import pytest
import torch

from plsc.conf import compose
from plsc.errors import TrainError
from plsc.train.process_group import Ranks
from plsc.train.schedule import RunPlan
from plsc.train.state import TrainState
from plsc.train.stepper import Stepper
from plsc.transforms import to_model_input
from tests.train.ranks import on_ranks

CLASSES, BATCH = 9, 12
ALONE = Ranks(0, 1, torch.device("cpu"))
CPU_FP16 = ("train.precision=fp16", "train.loss_scale.init=8")


def configured(*overrides):
    return compose(
        "tiny", "run_id=stepper", "image_size=16", "model.embedding_size=8", "train.precision=fp32",
        f"train.global_batch_size={BATCH}", "train.head.chunk_size=4", *overrides,
    )  # fmt: skip


def batch(step, ranks=ALONE):
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (BATCH, 16, 16, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    size = BATCH // ranks.world_size
    own = slice(size * ranks.rank, size * ranks.rank + size)
    return images[own], labels[own]


def begun(config, ranks=ALONE):
    state = TrainState.fresh(config, CLASSES, ranks)
    state.backbone.eval()  # batch statistics depend on how a batch is cut; weights must not
    return state, Stepper(state, RunPlan(config.train, 10), config, ranks)


def stepped(ranks, overrides, steps=3):
    """Take some steps; return the losses, the backbone's weights and the head's of this rank."""
    state, stepper = begun(configured(*overrides), ranks)
    losses = [
        stepper.take(step, *batch(step, ranks), count_correct=True).loss.item()
        for step in range(steps)
    ]
    backbone = {name: p.detach().clone() for name, p in state.backbone.named_parameters()}
    return losses, backbone, {"weight": state.head.weight.detach().clone()}


def assert_same(one, other, tolerance=1e-4):
    assert one[0] == pytest.approx(other[0], rel=tolerance)
    for mine, theirs in zip(one[1:], other[1:], strict=True):
        for name, value in theirs.items():
            torch.testing.assert_close(mine[name], value, rtol=tolerance, atol=tolerance, msg=name)


SGD = ("train.optimizer.name=sgd", "train.optimizer.lr=0.1", "train.schedule.warmup_epochs=0")
WAYS = [
    ("train.head.update=deferred",),
    ("train.head.update=plain",),
    ("train.head.distribution=replicated",),
    ("train.micro_batches=3",),
    ("train.micro_batches=2", "train.head.update=plain"),
    ("train.head.logits_cache_mib=1",),
    ("train.gradient_checkpointing=true",),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way[0])
def test_every_way_to_take_a_step_leads_to_the_same_weights(way):
    assert_same(stepped(ALONE, (*SGD, *way)), stepped(ALONE, SGD))


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_one():
    cases = [((*SGD, *way, *more),) for way in [(), *WAYS[:4]] for more in [(), CLIP]]
    for (overrides,), outputs in zip(cases, on_ranks(2, stepped, cases), strict=True):
        alone = stepped(ALONE, overrides)
        for losses, backbone, _ in outputs:
            assert losses == pytest.approx(alone[0], rel=1e-4)
            assert_same((losses, backbone), alone[:2])
        rows = [of_rank[2]["weight"] for of_rank in outputs]
        replicated = "train.head.distribution=replicated" in overrides
        weight = rows[0] if replicated else torch.cat(rows)
        torch.testing.assert_close(weight, alone[2]["weight"], rtol=1e-4, atol=1e-4)


CLIP = ("train.clip_norm=0.5",)


@pytest.mark.parametrize("update", ["deferred", "plain"])
@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
def test_clipping_equals_torchs_over_backbone_and_head(update, clip_norm):
    config = configured(*SGD, f"train.clip_norm={clip_norm}", f"train.head.update={update}")
    state, stepper = begun(config)
    stepper.take(0, *batch(0), count_correct=False)

    plain = configured(*SGD, "train.head.update=plain")
    expected, unclipped = begun(plain)
    optimizer = expected.optimizer
    step, optimizer.step = optimizer.step, lambda: None
    unclipped.take(0, *batch(0), count_correct=False)  # leaves the gradients, changes nothing
    parameters = [*expected.backbone.parameters(), *expected.head.parameters()]
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    assert norm > 0.5
    step()
    torch.testing.assert_close(state.head.weight, expected.head.weight, rtol=1e-5, atol=1e-6)
    for one, other in zip(state.backbone.parameters(), expected.backbone.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_fp16_with_loss_scaling_trains_like_fp32():
    losses, _, _ = stepped(ALONE, (*SGD, *CPU_FP16), steps=6)
    expected, _, _ = stepped(ALONE, SGD, steps=6)
    assert losses == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("update", ["deferred", "plain"])
def test_step_whose_scaled_gradients_overflow_changes_no_weight_and_lowers_the_scale(update):
    config = configured(
        *SGD, "train.precision=fp16", f"train.head.update={update}",
        "train.loss_scale.init=1e36", "train.loss_scale.backoff_interval=1",
        "train.loss_scale.backoff_factor=1e-34",
    )  # fmt: skip
    state, stepper = begun(config)
    before = everything(state)
    stepper.take(0, *batch(0), count_correct=False)
    assert stepper.skipped == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in everything(state).items())
    assert state.loss_scale.value == pytest.approx(100)
    stepper.take(1, *batch(1), count_correct=False)
    assert stepper.skipped == 1
    after = everything(state)
    assert not torch.equal(after["weight"], before["weight"])
    assert all(tensor.isfinite().all() for tensor in after.values())


def everything(state):
    tensors = dict(state.backbone.named_parameters()) | state.head.state_rows()
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def test_embeddings_that_are_not_finite_stop_the_step_before_anything_changes():
    state, stepper = begun(configured(*SGD))
    before = everything(state)
    state.backbone.register_forward_hook(lambda _, __, embeddings_BD: embeddings_BD * math.nan)
    with pytest.raises(TrainError, match=r"step 1: .* embeddings on rank 0 are not finite"):
        stepper.take(0, *batch(0), count_correct=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in everything(state).items())


def test_the_backbone_reads_what_clients_send():
    state, stepper = begun(configured(*SGD))
    seen = []
    state.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images_BSS3, labels_B = batch(0)
    stepper.take(0, images_BSS3, labels_B, count_correct=False)
    expected = torch.from_numpy(to_model_input(images_BSS3.numpy()))
    assert torch.equal(seen[0], expected)
    assert seen[0].dtype == torch.float32
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
