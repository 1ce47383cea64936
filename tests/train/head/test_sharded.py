"""The sharded head against a dense float64 reference, on 1 to 4 ranks."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plsc.conf.schema import Distribution, GradientMode, HeadUpdate, Loss
from tests.train.problems import (
    ADAMW,
    ALONE,
    SGD,
    Problem,
    assert_equals_reference,
    configured,
    trained,
)
from tests.train.ranks import on_ranks

EVERY_LOSS = [configured(loss) for loss in Loss]
EVERY_LOSS += [
    configured(loss, gradient=GradientMode.ste) for loss in (Loss.arcface, Loss.combined)
]
PROBLEMS = [
    *(Problem(config) for config in EVERY_LOSS),
    *(Problem(config, num_classes=2) for config in EVERY_LOSS),  # ranks without a class
    *(Problem(dataclasses.replace(c, update=HeadUpdate.deferred)) for c in EVERY_LOSS),
    *(Problem(dataclasses.replace(c, update=HeadUpdate.plain)) for c in EVERY_LOSS),
    *(Problem(config, ADAMW) for config in EVERY_LOSS),
    Problem(configured(logits_cache_mib=1)),
    Problem(configured(logits_cache_mib=1, update=HeadUpdate.deferred)),
    Problem(configured(), batch_size=13),  # uneven: padded with label -1
    Problem(configured(distribution=Distribution.replicated)),
    Problem(configured(Loss.softmax, distribution=Distribution.replicated), batch_size=13),
    Problem(configured(Loss.cosface), num_classes=1),
]


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_head_equals_the_dense_float64_reference(world_size):
    outputs = on_ranks(world_size, trained, [(problem,) for problem in PROBLEMS])
    for problem, of_ranks in zip(PROBLEMS, outputs, strict=True):
        assert_equals_reference(problem, of_ranks, 1e-11)


def test_float32_stays_within_2e_5_of_float64():
    problems = [
        Problem(dataclasses.replace(config, update=update), num_classes=101, dtype=torch.float32)
        for config in EVERY_LOSS
        for update in (HeadUpdate.fused, HeadUpdate.plain)
    ]
    outputs = on_ranks(2, trained, [(problem,) for problem in problems])
    for problem, of_ranks in zip(problems, outputs, strict=True):
        assert_equals_reference(problem, of_ranks, 2e-5)


EXTREMES = [
    configured(Loss.arcface),
    configured(Loss.arcface, gradient=GradientMode.ste),
    configured(Loss.cosface),
    configured(Loss.combined, margins=[1.0, 0.3, 0.1]),
    configured(Loss.combined, margins=[2.0, 0.0, 0.2]),
    configured(Loss.normalized_softmax),
]


@pytest.mark.parametrize("config", EXTREMES, ids=range(len(EXTREMES)))
def test_cosines_of_plus_and_minus_one_equal_the_reference_too(config):
    problem = Problem(config, extremes=True)
    assert_equals_reference(problem, [trained(ALONE, problem)], 1e-11)


@settings(deadline=None, max_examples=40)
@given(
    config=st.sampled_from(EVERY_LOSS),
    update=st.sampled_from([HeadUpdate.fused, HeadUpdate.deferred, HeadUpdate.plain]),
    optimizer=st.sampled_from([SGD, ADAMW]),
    num_classes=st.integers(1, 40),
    embedding_size=st.integers(2, 33),
    batch_size=st.integers(3, 20),
    chunk_size=st.integers(1, 50),
    cache=st.integers(0, 1),
)
def test_any_shape_equals_the_dense_float64_reference(
    config, update, optimizer, num_classes, embedding_size, batch_size, chunk_size, cache
):
    config = dataclasses.replace(
        config, update=update, chunk_size=chunk_size, logits_cache_mib=cache
    )
    problem = Problem(
        config, optimizer, num_classes=num_classes, embedding_size=embedding_size,
        batch_size=batch_size, steps=2,
    )  # fmt: skip
    assert_equals_reference(problem, [trained(ALONE, problem)], 1e-10)
