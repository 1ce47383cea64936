"""The sharded head against a dense float64 reference, on 1, 2 and 3 ranks."""

import math

import pytest
import torch
from torch.nn import functional

from plsc.conf.schema import HeadConfig, Loss
from plsc.train.head import ShardedHead
from plsc.train.margin import apply_margin
from plsc.train.process_group import Ranks
from tests.train.ranks import on_ranks

D, B_GLOBAL = 16, 12


def dense_reference(loss, embeddings, weight, bias, labels, margin, scale):
    """The textbook loss on one process: arccos, one-hot, log-softmax."""
    if loss is Loss.softmax:
        logits = embeddings @ weight.T + bias
    else:
        cosines = functional.normalize(embeddings) @ functional.normalize(weight).T
        target = functional.one_hot(labels.clamp_min(0), weight.shape[0]).bool()
        theta = cosines.clamp(-1 + 1e-12, 1 - 1e-12).arccos()
        turned = torch.where(
            theta + margin < math.pi, (theta + margin).cos(), cosines - margin * math.sin(margin)
        )
        with_margin = turned if loss is Loss.arcface else cosines - margin
        logits = scale * torch.where(target, with_margin, cosines)
    valid = labels >= 0
    return functional.cross_entropy(logits[valid], labels[valid])


def make_case(num_classes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    embeddings = torch.randn(B_GLOBAL, D, generator=generator).to(dtype)
    labels = torch.randint(0, num_classes, (B_GLOBAL,), generator=generator)
    labels[-1] = -1
    return embeddings, labels


def one_rank(ranks: Ranks, loss: Loss, num_classes: int, dtype: torch.dtype) -> dict:
    """Run on every rank: loss, this rank's gradients, and where they belong."""
    config = HeadConfig(loss=loss, margin=0.5, scale=32.0)
    head = ShardedHead(config, num_classes=num_classes, embedding_size=D, ranks=ranks, seed=7)
    head = head.to(dtype)
    embeddings, labels = make_case(num_classes, dtype)
    size = B_GLOBAL // ranks.world_size
    own = slice(ranks.rank * size, (ranks.rank + 1) * size)
    local = embeddings[own].clone().requires_grad_()
    output = head(local, labels[own], config.margin)
    output.loss.backward()
    return {
        "loss": output.loss.item(),
        "correct_1": output.correct_1.item(),
        "correct_5": output.correct_5.item(),
        "embeddings_grad": local.grad / ranks.world_size,
        "weight": head.weight.detach(),
        "weight_grad": head.weight.grad,
        "bias_grad": None if head.bias is None else head.bias.grad,
    }


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_classes", [11, 2])
def test_sharded_head_equals_the_dense_float64_reference(world_size, num_classes):
    cases = [(loss, num_classes, torch.float64) for loss in Loss]
    results = on_ranks(world_size, one_rank, cases)
    for (loss, _, _), outputs in zip(cases, results, strict=True):
        weight = torch.cat([o["weight"] for o in outputs]).requires_grad_()
        bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
        embeddings, labels = make_case(num_classes)
        embeddings.requires_grad_()
        expected = dense_reference(loss, embeddings, weight, bias, labels, 0.5, 32.0)
        expected.backward()
        assert len(weight) == num_classes
        for output in outputs:
            assert output["loss"] == pytest.approx(expected.item(), rel=1e-11)
        close = {"rtol": 1e-10, "atol": 1e-11}
        torch.testing.assert_close(
            torch.cat([o["embeddings_grad"] for o in outputs]), embeddings.grad, **close
        )
        torch.testing.assert_close(
            torch.cat([o["weight_grad"] for o in outputs]), weight.grad, **close
        )
        if loss is Loss.softmax:
            torch.testing.assert_close(
                torch.cat([o["bias_grad"] for o in outputs]), bias.grad, **close
            )


def test_float32_stays_within_2e_5_of_float64():
    exact, single = on_ranks(
        2, one_rank, [(Loss.arcface, 101, torch.float64), (Loss.arcface, 101, torch.float32)]
    )
    for one, other in zip(exact, single, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=2e-5)
        for key in ("embeddings_grad", "weight_grad"):
            error = (other[key].double() - one[key]).norm() / one[key].norm()
            assert error < 2e-5, key


def test_initial_centers_depend_on_the_class_and_not_on_the_ranks():
    case = [(Loss.arcface, 10_001, torch.float32)]
    (alone,) = on_ranks(1, one_rank, case)
    (three,) = on_ranks(3, one_rank, case)
    assert torch.equal(alone[0]["weight"], torch.cat([o["weight"] for o in three]))
    assert alone[0]["weight"].norm(dim=1).mean() == pytest.approx(1.0, abs=0.05)


def test_accuracy_counts_the_own_class_among_all_ranks():
    for outputs in on_ranks(2, perfect_rank, [()]):
        for correct_1, correct_5 in outputs:
            assert correct_1 == pytest.approx(3 / 4)
            assert correct_5 == pytest.approx(1.0)


def perfect_rank(ranks: Ranks) -> tuple[float, float]:
    """Four samples that sit on the centers of their classes, one of them on a neighbor's."""
    config = HeadConfig(loss=Loss.cosface, margin=0.1, scale=8.0)
    head = ShardedHead(config, num_classes=6, embedding_size=6, ranks=ranks, seed=0)
    with torch.no_grad():
        head.weight.copy_(torch.eye(6)[list(head.classes)])
    places = torch.tensor([0, 5, 2, 4])
    labels = torch.tensor([0, 5, 2, 3])
    own = slice(ranks.rank * 2, ranks.rank * 2 + 2)
    output = head(torch.eye(6)[places][own], labels[own], 0.1)
    return output.correct_1.item(), output.correct_5.item()


@pytest.mark.parametrize("cosine", [-1.0, 1.0, 0.0, -0.95])
def test_arcface_margin_is_finite_and_monotone_at_the_ends(cosine):
    target = torch.tensor([cosine], dtype=torch.float64, requires_grad=True)
    turned = apply_margin(Loss.arcface, target, 0.5)
    turned.sum().backward()
    assert torch.isfinite(turned).all()
    assert torch.isfinite(target.grad).all()
    assert target.grad.item() > 0


def test_all_samples_ignored_gives_zero_loss_and_no_gradient():
    alone = Ranks(0, 1, torch.device("cpu"))
    head = ShardedHead(HeadConfig(), num_classes=5, embedding_size=4, ranks=alone, seed=0)
    embeddings = torch.randn(3, 4, requires_grad=True)
    loss = head(embeddings, torch.full((3,), -1), 0.5).loss
    loss.backward()
    assert loss.item() == 0.0
    assert not embeddings.grad.any()
