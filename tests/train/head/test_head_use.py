"""Using the head: memory modes, accuracy, micro-batches, and what it refuses."""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from plsc.conf.schema import Distribution, HeadUpdate, Loss, Precision, StateDtype
from plsc.errors import ConfigError, TrainError
from plsc.train.head import HeadStep, Margin, ShardedHead
from plsc.train.process_group import Ranks
from tests.train.problems import ADAMW, ALONE, LR, SGD, Problem, configured, trained
from tests.train.ranks import on_ranks

MEMORY_MODES = {
    "bf16 momentum": {"momentum_dtype": StateDtype.bf16},
    "bf16 weights and momentum": {
        "momentum_dtype": StateDtype.bf16, "weight_dtype": StateDtype.bf16,
    },
    "8-bit momentum": {"momentum_dtype": StateDtype.int8, "weight_dtype": StateDtype.bf16},
    "bf16 products": {"precision": Precision.bf16},
}  # fmt: skip


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("mode", MEMORY_MODES)
def test_memory_modes_follow_the_exact_path_closely(mode, optimizer):
    exact = Problem(configured(), optimizer, dtype=torch.float32, embedding_size=128, steps=20)
    small = dataclasses.replace(
        exact, config=dataclasses.replace(exact.config, **MEMORY_MODES[mode])
    )
    expected, found = trained(ALONE, exact), trained(ALONE, small)
    assert found["losses"] == pytest.approx(expected["losses"], rel=0.03)
    moved = (expected["weight"] - expected["initial"]).norm()
    assert (found["weight"].float() - expected["weight"]).norm() < 0.1 * moved


def test_the_accuracy_counts_the_own_class_among_all_ranks():
    for outputs in on_ranks(2, perfect_rank, [()]):
        for correct_1, correct_5 in outputs:
            assert correct_1 == pytest.approx(3 / 4)
            assert correct_5 == pytest.approx(1.0)


def perfect_rank(ranks: Ranks) -> tuple[float, float]:
    """Four samples that sit on the centers of their classes, one of them on a neighbor's."""
    head = made(ranks=ranks, num_classes=6, embedding_size=6)
    with torch.no_grad():
        head.weight.copy_(torch.eye(6)[list(head.classes)])
    places = torch.tensor([0, 5, 2, 4])
    labels = torch.tensor([0, 5, 2, 3])
    own = slice(ranks.rank * 2, ranks.rank * 2 + 2)
    step = HeadStep(0, LR, Margin(m3=0.1), count_correct=True)
    with torch.no_grad():
        output = head(torch.eye(6)[places][own], labels[own], step)
    return output.correct_1.item(), output.correct_5.item()


def made(config=None, *, ranks=ALONE, num_classes=5, embedding_size=4, optimizer=SGD):
    return ShardedHead(
        config or configured(Loss.cosface), optimizer, num_classes=num_classes,
        embedding_size=embedding_size, ranks=ranks, seed=0,
    )  # fmt: skip


def test_initial_centers_depend_on_the_class_and_not_on_the_ranks():
    case = (Problem(configured(), num_classes=10_001, steps=0, dtype=torch.float32),)
    (alone,) = on_ranks(1, trained, [case])
    (three,) = on_ranks(3, trained, [case])
    assert torch.equal(alone[0]["weight"], torch.cat([o["weight"] for o in three]))
    assert alone[0]["weight"].norm(dim=1).mean() == pytest.approx(1.0, abs=0.05)


def test_all_samples_ignored_gives_zero_loss_and_no_gradient():
    head = made()
    embeddings = torch.randn(3, 4, requires_grad=True)
    loss = head(embeddings, torch.full((3,), -1), HeadStep(0, LR, Margin())).loss
    loss.backward()
    assert loss.item() == 0.0
    assert not embeddings.grad.any()


def test_head_learns_above_a_frozen_backbone():
    head = made()
    before = head.weight.clone()
    head(torch.randn(3, 4), torch.tensor([0, 1, 2]), HeadStep(0, LR, Margin())).loss.backward()
    assert not torch.equal(head.weight, before)


def test_no_gradient_asked_for_changes_nothing():
    head = made()
    before = head.weight.clone()
    with torch.no_grad():
        output = head(torch.randn(3, 4), torch.tensor([0, 1, 2]), HeadStep(0, LR, Margin()))
    assert output.loss > 0
    assert torch.equal(head.weight, before)


def refused(ranks: Ranks, update: HeadUpdate, embeddings, labels) -> tuple[str, bool]:
    """Return the message of the error on this rank, and whether anything was changed."""
    head = made(configured(update=update), ranks=ranks)
    before = {name: rows.clone() for name, rows in head.state_rows().items()}
    own = slice(2 * ranks.rank, 2 * ranks.rank + 2)
    try:
        output = head(embeddings[own].requires_grad_(), labels[own], HeadStep(41, LR, Margin()))
        output.loss.backward()
    except TrainError as error:
        message = str(error)
    return message, all(torch.equal(before[n], rows) for n, rows in head.state_rows().items())


def test_wrong_labels_and_embeddings_are_refused_on_every_rank_before_anything_changes():
    good, labels = torch.randn(4, 4), torch.tensor([0, 1, 2, -1])
    broken = good.clone()
    broken[2, 1] = torch.nan
    infinite = good.clone()
    infinite[3] = torch.inf
    cases = [
        (good, torch.tensor([0, 1, 2, 5]), "step 42: rank 1 has label 5, expected 0..4"),
        (good, torch.tensor([0, -2, 2, 4]), "step 42: rank 0 has label -2, expected 0..4"),
        (broken, labels, "step 42: 1 of the 2 embeddings on rank 1 are not finite"),
        (infinite, labels, "step 42: 1 of the 2 embeddings on rank 1 are not finite"),
    ]
    updates = (HeadUpdate.fused, HeadUpdate.deferred)
    given_cases = [(update, *case[:2]) for case in cases for update in updates]
    expected = [case[2] for case in cases for _ in updates]
    for outputs, message in zip(on_ranks(2, refused, given_cases), expected, strict=True):
        for found, is_unchanged in outputs:
            assert found.startswith(message)
            assert is_unchanged


def test_two_forward_passes_before_a_fused_backward_are_refused():
    head = made()
    embeddings = torch.randn(3, 4, requires_grad=True)
    step = HeadStep(0, LR, Margin())
    labels = torch.tensor([0, 1, 2])
    first, second = head(embeddings, labels, step).loss, head(embeddings, labels, step).loss
    first.backward()
    with pytest.raises(RuntimeError, match="use deferred for several of them"):
        second.backward()


@pytest.mark.parametrize("sample_rate", [1.0, 0.5])
def test_micro_batches_together_are_the_whole_batch(sample_rate):
    config = configured(update=HeadUpdate.deferred, sample_rate=sample_rate)
    embeddings, labels = Problem(config).batch(0)
    weights = []
    for parts in (1, 3):
        head = ShardedHead(config, SGD, num_classes=11, embedding_size=16, ranks=ALONE, seed=0,
                           dtype=torch.float64)  # fmt: skip
        step = HeadStep(0, LR, Margin(m2=0.5), num_valid=10, step_labels_B=labels)
        gradients = []
        for part, part_labels in zip(embeddings.chunk(parts), labels.chunk(parts), strict=True):
            local = part.clone().requires_grad_()
            head(local, part_labels, step).loss.backward()
            gradients.append(local.grad)
        head.apply_update()
        weights.append((head.weight.clone(), torch.cat(gradients)))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"distribution": Distribution.replicated, "update": HeadUpdate.fused}, "expected plain"),
        ({"update": HeadUpdate.plain, "sample_rate": 0.5}, "found 0.5, fp32 and fp32"),
        ({"distribution": Distribution.replicated, "weight_dtype": StateDtype.bf16}, "1.0, bf16"),
    ],
)
def test_updates_that_would_lose_gradients_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        made(configured(**settings))


def test_half_a_step_is_no_state_to_save():
    head = made(configured(update=HeadUpdate.deferred))
    head(torch.randn(3, 4), torch.tensor([0, 1, 2]), HeadStep(0, LR, Margin())).loss.backward()
    with pytest.raises(RuntimeError, match=r"1 backward passes wait for apply_update"):
        head.state_rows()
    head.apply_update()
    assert "weight" in head.state_rows()


class _Largest(TorchDispatchMode):
    """Watches every tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in known:
                    self.elements = max(self.elements, storage.nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("update", [HeadUpdate.fused, HeadUpdate.deferred])
@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("sample_rate", [1.0, 0.1])
def test_no_step_makes_a_tensor_as_large_as_the_logits_or_the_class_centers(
    update, optimizer, sample_rate
):
    num_classes, batch, size = 8000, 64, 32
    config = configured(chunk_size=256, update=update, sample_rate=sample_rate)
    head = made(config, num_classes=num_classes, embedding_size=size, optimizer=optimizer)
    embeddings = torch.randn(batch, size, requires_grad=True)
    labels = torch.randint(0, num_classes, (batch,))
    with _Largest() as largest:
        step = HeadStep(0, LR, Margin(m2=0.5), count_correct=True)
        head(embeddings, labels, step).loss.backward()
        if update is HeadUpdate.deferred:
            head.gradient_norm_squared()
            head.apply_update()
    assert largest.elements < num_classes * min(batch, size) / 4
