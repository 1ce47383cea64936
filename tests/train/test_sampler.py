"""The order of samples is a permutation that no rank count changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plsc.train.partition import partition_classes
from plsc.train.sampler import Sampler


@settings(deadline=None, max_examples=60)
@given(num_samples=st.integers(1, 3000), epoch=st.integers(0, 5), seed=st.integers(0, 2**31))
def test_every_sample_comes_once_an_epoch(num_samples, epoch, seed):
    sampler = Sampler(num_samples, 8, seed)
    order = sampler.permute(np.arange(num_samples, dtype=np.uint64), epoch)
    assert np.array_equal(np.sort(order), np.arange(num_samples))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_global_batches_do_not_depend_on_the_number_of_ranks(world_size):
    sampler = Sampler(1001, 24, seed=5)
    for step in (0, 3, sampler.steps_per_epoch - 1, sampler.steps_per_epoch + 7):
        parts = [sampler.batch(step, rank, world_size) for rank in range(world_size)]
        assert np.array_equal(np.concatenate(parts), sampler.batch(step))


def test_last_batch_is_filled_up_with_the_first_samples_of_the_epoch():
    sampler = Sampler(10, 4, seed=1)
    epoch = np.concatenate([sampler.batch(step) for step in range(sampler.steps_per_epoch)])
    assert np.array_equal(np.sort(epoch[:10]), np.arange(10))
    assert np.array_equal(epoch[10:], epoch[:2])


def test_epochs_and_seeds_differ():
    orders = [Sampler(500, 10, seed).permute(np.arange(500, dtype=np.uint64), epoch).tolist()
              for seed in (0, 1) for epoch in (0, 1)]  # fmt: skip
    assert len({tuple(order) for order in orders}) == 4


def test_neighbors_are_scattered():
    order = Sampler(10_000, 10, 0).permute(np.arange(10_000, dtype=np.uint64), 0)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05


@given(num_classes=st.integers(0, 500), world_size=st.integers(1, 17))
def test_classes_are_dealt_in_blocks_that_differ_by_at_most_one(num_classes, world_size):
    blocks = [partition_classes(num_classes, world_size, rank) for rank in range(world_size)]
    assert [c for block in blocks for c in block] == list(range(num_classes))
    sizes = [len(block) for block in blocks]
    assert max(sizes) - min(sizes) <= 1
