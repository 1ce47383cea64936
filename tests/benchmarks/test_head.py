"""The benchmark of the head: its lines, and that what it compares computes the same."""

import json

import numpy as np
import pytest
import torch

from benchmarks.contenders import VARIANTS, Batch, Centers, Fused, Shape, make
from benchmarks.head import main, table
from benchmarks.measuring import measure_peak, time_rounds
from benchmarks.processes import on_ranks
from plsc.conf.schema import GradientMode
from plsc.train.process_group import Ranks

ALONE = Ranks(0, 1, torch.device("cpu"))
# Wide enough for random losses to stay below 69.08, where the materialized reference caps them.
SMALL = Shape(classes=301, batch_size=8, embedding_size=256, chunk_size=64)
KEYS = {
    "variant",
    "classes",
    "batch_size",
    "ranks",
    "embedding_size",
    "step_seconds_min",
    "step_seconds_median",
    "bytes_per_class",
}


def trained(variant: str, centers: Centers, ranks: Ranks) -> tuple[list[float], torch.Tensor]:
    """Three steps of a reference on copies of ``centers``: losses, and the weights after."""
    copies = Centers(centers.weight_LD.clone(), centers.momentum_LD.clone())
    contender = make(variant, SMALL, ranks, centers=copies)
    batch = Batch.drawn(SMALL, ranks)
    return [contender.step(batch).item() for _ in range(3)], copies.weight_LD


@pytest.mark.parametrize(
    ("reference", "gradient"),
    [("materialized", GradientMode.ste), ("dense", GradientMode.exact)],
)
@pytest.mark.parametrize("variant", ["fused", "fused_cached"])
def test_a_reference_computes_what_our_head_computes(variant, reference, gradient):
    ours = make(variant, SMALL, ALONE, gradient=gradient)
    assert isinstance(ours, Fused)
    expected, weight = trained(reference, ours.centers(), ALONE)
    batch = Batch.drawn(SMALL, ALONE)
    losses = [ours.step(batch).item() for _ in range(3)]
    assert losses == pytest.approx(expected, rel=1e-4)
    error = (ours.centers().weight_LD - weight).norm() / weight.norm()
    assert error < 1e-4


def test_the_gradient_mode_makes_a_difference_that_the_comparison_sees():
    ours = make("fused", SMALL, ALONE, gradient=GradientMode.exact)
    assert isinstance(ours, Fused)
    _, weight = trained("materialized", ours.centers(), ALONE)
    batch = Batch.drawn(SMALL, ALONE)
    for _ in range(3):
        ours.step(batch)
    assert (ours.centers().weight_LD - weight).norm() / weight.norm() > 1e-2


def on_one_rank(ranks: Ranks, gradient: GradientMode) -> tuple[list[float], list[float], float]:
    """Run on every rank: losses of ours and of the reference, and how far the weights differ."""
    ours = make("fused", SMALL, ranks, gradient=gradient)
    assert isinstance(ours, Fused)
    expected, weight = trained("materialized", ours.centers(), ranks)
    batch = Batch.drawn(SMALL, ranks)
    losses = [ours.step(batch).item() for _ in range(3)]
    difference = (ours.centers().weight_LD - weight).norm() / weight.norm()
    return losses, expected, difference.item()


@pytest.mark.slow
def test_on_two_ranks_ours_and_the_reference_are_equal_and_as_on_one():
    alone, _, _ = on_one_rank(ALONE, GradientMode.ste)
    for losses, expected, difference in on_ranks(2, 1, on_one_rank, GradientMode.ste):
        assert losses == pytest.approx(expected, rel=1e-4)
        assert losses == pytest.approx(alone, rel=1e-4)
        assert difference < 1e-4


def test_the_sampled_reference_keeps_the_classes_of_the_batch():
    centers = Centers.drawn(SMALL, ALONE)
    batch = Batch.drawn(SMALL, ALONE)
    contender = make("materialized_sampled_0.1", SMALL, ALONE, centers=centers)
    losses = [contender.step(batch).item() for _ in range(20)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("is_rebuilt", [False, True])
def test_every_variant_can_be_timed(is_rebuilt, capsys):
    seconds = time_rounds(ALONE, VARIANTS, SMALL, 2, is_rebuilt=is_rebuilt)
    assert list(seconds) == VARIANTS
    assert all(len(times) == 2 and min(times) > 0 for times in seconds.values())
    assert f"round 2 of 2: {VARIANTS[-1]}" in capsys.readouterr().err


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_memory_of_every_variant_can_be_measured(variant):
    peak = measure_peak(ALONE, variant, SMALL, steps=1)
    assert -(2**20) < peak.growth_bytes < 100 * 2**20  # so small a task drowns in pages
    assert peak.num_local_classes == SMALL.classes
    assert np.isfinite(peak.losses).all()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_command_prints_a_line_for_each_variant_and_a_table(ranks, capsys):
    variants = ["fused", "materialized"]
    arguments = "--classes 8000 --batch-size 8 --embedding-size 64 --chunk-size 512 --rounds 2"
    given = [*arguments.split(), "--ranks", str(ranks), "--variants", ",".join(variants)]
    assert main(given) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["variant"] for line in lines] == variants
    for line in lines:
        assert line.keys() >= KEYS
        assert (line["classes"], line["batch_size"], line["ranks"]) == (8000, 8, ranks)
        assert 0 < line["step_seconds_min"] <= line["step_seconds_median"]
        assert line["bytes_per_class"] >= 0.95 * 2 * 4 * 64  # weights and momentum at least
    assert lines[1]["ratio_to_materialized"] == 1.0
    assert lines[0]["losses"][0] == pytest.approx(lines[1]["losses"][0], rel=0.2)
    assert table(lines) in printed.err


def test_an_unknown_variant_and_an_uneven_batch_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--variants", "fused,fuzed"])
    assert "no such variant: fuzed; there are fused, " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--batch-size", "7", "--ranks", "2"])
    assert "batch size 7 is no multiple of 2 ranks" in capsys.readouterr().err
