"""The loss scale against a re-statement of its rules over whole rows of steps."""

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plsc.conf.schema import LossScaleConfig
from plsc.errors import TrainError
from plsc.train.loss_scale import HOPELESS_STEPS, LossScale

configs = st.builds(
    LossScaleConfig,
    init=st.one_of(st.sampled_from([1.0, 2.0**16, 1e38]), st.floats(1, 3e38)),
    is_dynamic=st.booleans(),
    growth_interval=st.integers(1, 7),
    growth_factor=st.floats(1.01, 1e6),
    backoff_interval=st.integers(1, 5),
    backoff_factor=st.floats(1e-6, 0.99),
)
rows = st.lists(st.tuples(st.booleans(), st.integers(1, 45)), max_size=8)
histories = rows.map(lambda found: [kind for kind, length in found for _ in range(length)])


def restated(config, history):
    """Return the factor after ``history``, row by row; None if training should have ended."""
    value, floor = config.init, 1.0 if config.is_dynamic else config.init
    for is_finite, row in itertools.groupby(history):
        length = sum(1 for _ in row)
        if is_finite:
            for _ in range(length // config.growth_interval if config.is_dynamic else 0):
                value = value * config.growth_factor if _fits(value, config) else value
            continue
        while length and value > floor:
            used = min(length, config.backoff_interval)
            if used == config.backoff_interval:
                value = max(1.0, value * config.backoff_factor)
            length -= used
        if length >= HOPELESS_STEPS:
            return None
    return value


def _fits(value, config):
    return value * config.growth_factor <= 3.4028234663852886e38  # the largest float32


def run(scale, history):
    for is_finite in history:
        scale.update(is_finite)
    return scale.value


@given(configs, histories)
@example(LossScaleConfig(), [False] * HOPELESS_STEPS)
@example(LossScaleConfig(init=4.0), [False] * (HOPELESS_STEPS + 3))
@example(LossScaleConfig(init=3e38, growth_interval=1), [True] * 3)
def test_scale_follows_its_rules_over_any_history(config, history):
    expected = restated(config, history)
    scale = LossScale(config)
    if expected is None:
        with pytest.raises(TrainError, match=f"{HOPELESS_STEPS} steps in a row"):
            run(scale, history)
    else:
        assert run(scale, history) == expected
    assert math.isfinite(scale.value)
    assert scale.value >= 1


@given(configs, histories, st.integers(0, 400))
def test_resumed_scale_is_the_one_that_was_saved(config, history, place):
    if restated(config, history) is None:
        return
    straight = LossScale(config)
    run(straight, history)
    first, resumed = LossScale(config), LossScale(config)
    run(first, history[:place])
    resumed.load(first.state())
    run(resumed, history[place:])
    assert resumed.state() == straight.state()


def test_rows_of_paddle_are_broken_by_the_other_kind_of_step():
    config = LossScaleConfig(init=8.0, growth_interval=3, backoff_interval=2)
    assert run(LossScale(config), [True, True, False, True, True]) == 8.0
    assert run(LossScale(config), [False, True, False, True]) == 8.0
    assert run(LossScale(config), [False, False]) == 4.0
    assert run(LossScale(config), [False, False, False]) == 4.0
    assert run(LossScale(config), [True, True, True]) == 16.0


def test_scale_that_cannot_shrink_ends_training_instead_of_standing_still():
    scale = LossScale(LossScaleConfig(init=2.0, backoff_interval=1))
    run(scale, [False] * HOPELESS_STEPS)
    assert scale.value == 1.0
    with pytest.raises(TrainError, match=r"loss scale of 1 \(smallest\).*train.precision=bf16"):
        scale.update(is_finite=False)


def test_one_finite_step_gives_hope_again():
    scale = LossScale(LossScaleConfig())
    almost = [False] * (HOPELESS_STEPS - 1)
    assert run(scale, [*almost, True, *almost]) == 1.0


def test_constant_scale_stays_and_ends_training_too():
    config = LossScaleConfig(init=128.0, is_dynamic=False, growth_interval=1, backoff_interval=1)
    scale = LossScale(config)
    assert run(scale, [True] * 50 + [False] * (HOPELESS_STEPS - 1)) == 128.0
    with pytest.raises(TrainError, match=r"128 .*is_dynamic=false"):
        scale.update(is_finite=False)


def test_constant_scale_is_the_configured_one_after_resuming():
    dynamic = LossScale(LossScaleConfig(init=1024.0))
    constant = LossScale(LossScaleConfig(init=16.0, is_dynamic=False))
    constant.load(dynamic.state())
    assert constant.value == 16.0
