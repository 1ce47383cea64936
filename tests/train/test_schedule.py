"""Learning rate and margin over the steps."""

import pytest

from plsc.conf import compose
from plsc.train.schedule import RunPlan


def plan(*overrides, steps_per_epoch=10):
    settings = ("train.epochs=10", "train.optimizer.lr=1.0", "train.optimizer.lr_batch_size=0",
                "train.schedule.warmup_epochs=1", "train.margin_warmup_epochs=0")  # fmt: skip
    return RunPlan(compose("glyphs", "run_id=t", *settings, *overrides).train, steps_per_epoch)


def test_warm_up_rises_to_the_peak():
    rates = [plan().lr(step) for step in range(10)]
    assert rates == pytest.approx([(n + 1) / 10 for n in range(10)])


def test_cosine_and_poly_fall_from_the_peak_towards_zero():
    for name in ("cosine", "poly"):
        falling = plan(f"train.schedule.name={name}")
        rates = [falling.lr(step) for step in range(10, 100)]
        assert rates[0] == pytest.approx(1.0)
        assert rates == sorted(rates, reverse=True)
        assert 0 < rates[-1] < 0.001
    assert plan("train.schedule.name=cosine").lr(55) == pytest.approx(0.5)
    assert plan("train.schedule.name=poly").lr(55) == pytest.approx(0.25)


def test_step_schedule_multiplies_at_each_boundary():
    stepped = plan("train.schedule.name=step", "train.schedule.boundaries=[20,50]")
    assert [stepped.lr(s) for s in (10, 19, 20, 49, 50, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_rate_scales_with_the_global_batch():
    scaled = plan("train.optimizer.lr_batch_size=1024", "train.global_batch_size=256")
    assert scaled.lr(10) == pytest.approx(0.25)


def test_margin_warms_up_linearly():
    warming = plan("train.margin_warmup_epochs=2", "train.head.margin=0.4")
    margins = [warming.margin(step).m2 for step in (0, 10, 20, 99)]
    assert margins == pytest.approx([0, 0.2, 0.4, 0.4])
    assert plan("train.head.margin=0.4").margin(0).m2 == 0.4


def test_max_steps_ends_the_run_early():
    assert plan("train.max_steps=7").total_steps == 7
    assert plan().total_steps == 100
