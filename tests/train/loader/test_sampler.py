"""The order of samples is a permutation that no rank count changes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plsc.train.loader.keyed import permute, uniforms
from plsc.train.loader.sampler import Sampler
from plsc.train.partition import partition_classes

UNEQUAL = [5, 1, 9, 4, 7, 2, 8]

GOLDEN = [
    (2, 3), (1, 0), (2, 0), (2, 1), (2, 2), (0, 2), (0, 0), (3, 1), (3, 0), (0, 1), (0, 2), (0, 0),
    (0, 2), (2, 3), (0, 1), (2, 2), (0, 0), (2, 1), (2, 0), (3, 1), (1, 0), (3, 0), (3, 1), (1, 0),
]  # fmt: skip
GOLDEN_SHARDS = [2, 1, 0, 3]
GOLDEN_PERMUTATION = [3, 1, 5, 0, 2, 6, 8, 9, 7, 4]
GOLDEN_UNIFORMS = [
    [0.8131014092702095, 0.8396639211601825],
    [0.9101112564730792, 0.05190927517240285],
]


def samples(sampler, steps, rank=0, world_size=1):
    """Return the (shard, row) of every place of the batches of ``steps``."""
    parts = [sampler.batch(step, rank, world_size) for step in steps]
    return [
        place
        for shards, rows in parts
        for place in zip(shards.tolist(), rows.tolist(), strict=True)
    ]


def epoch_of(sampler, number=0):
    steps = sampler.steps_per_epoch
    return samples(sampler, range(number * steps, (number + 1) * steps))


@settings(deadline=None, max_examples=80)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=20),
    batch=st.integers(1, 50),
    window=st.integers(1, 25),
    epoch=st.integers(0, 3),
    seed=st.integers(-5, 2**63),
)
def test_every_sample_comes_once_an_epoch_and_then_those_of_the_last_window_again(
    sizes, batch, window, epoch, seed
):
    sampler = Sampler(sizes, batch, seed, window)
    order = epoch_of(sampler, epoch)
    whole = {(shard, row) for shard, size in enumerate(sizes) for row in range(size)}
    assert len(order) == sampler.steps_per_epoch * batch
    assert set(order[: sum(sizes)]) == whole
    last = sampler.shards((epoch + 1) * sampler.num_windows - 1)
    of_last = [place for place in order[: sum(sizes)] if place[0] in last]
    repeats = order[sum(sizes) :]
    assert repeats == list(itertools.islice(itertools.cycle(of_last), len(repeats)))


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 5000), key=st.integers())
def test_a_permutation_has_every_number_once(size, key):
    order = permute(np.arange(size), size, (key,))
    assert np.array_equal(np.sort(order), np.arange(size))


def test_a_permutation_of_more_than_can_be_stored_is_computed_where_it_is_asked_for():
    order = permute(np.arange(1000), 2**62 - 57, (3,))
    assert len(set(order.tolist())) == 1000
    assert 0 <= order.min() <= order.max() < 2**62 - 57


@pytest.mark.parametrize("window", [1, 3, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_global_batches_do_not_depend_on_the_number_of_ranks(world_size, window):
    alone, shared = (Sampler([143, 200, 7, 311, 340], 24, 5, window) for _ in range(2))
    for step in range(3 * alone.steps_per_epoch):
        parts = [samples(shared, [step], rank, world_size) for rank in range(world_size)]
        assert list(itertools.chain(*parts)) == samples(alone, [step])


@pytest.mark.parametrize("window", [2, 100])
def test_a_step_can_be_asked_for_alone_and_in_any_order(window):
    whole = Sampler(UNEQUAL, 5, 1, window)
    expected = {step: samples(whole, [step]) for step in range(40)}
    for step in (39, 0, 17, 8, 25):
        assert samples(Sampler(UNEQUAL, 5, 1, window), [step]) == expected[step]
        assert samples(whole, [step]) == expected[step]


def test_a_batch_reads_no_shards_but_those_of_its_windows():
    sampler = Sampler(UNEQUAL, 4, 9, 2)
    straddling = 0
    for step in range(4 * sampler.steps_per_epoch):
        windows = sampler.windows(step)
        straddling += len(windows) > 1
        allowed = {shard for window in windows for shard in sampler.shards(window)}
        assert {shard for shard, _ in samples(sampler, [step])} <= allowed
        assert len(windows) <= sampler.windows_at_once
    assert straddling > 4


def test_windows_are_at_most_as_large_as_asked_and_differ_by_at_most_one_shard():
    sampler = Sampler([10] * 33, 4, 0, 32)
    assert [len(sampler.shards(window)) for window in range(2)] == [17, 16]
    assert sorted(sampler.shards(0) + sampler.shards(1)) == list(range(33))


def test_shards_are_told_in_the_order_in_which_they_are_needed():
    sampler = Sampler(UNEQUAL, 4, 2, 2)
    for window in range(6):
        order = sampler.shards_by_need(window)
        assert sorted(order) == list(range(7))
        coming = [shard for n in range(window, window + 12) for shard in sampler.shards(n)]
        assert order == list(dict.fromkeys(coming))


def test_windows_at_once_are_more_when_a_batch_is_larger_than_a_window():
    assert Sampler([10] * 8, 4, 0, 8).windows_at_once == 1
    assert Sampler([10] * 8, 4, 0, 2).windows_at_once == 2
    assert Sampler([10] * 8, 45, 0, 1).windows_at_once == 6
    assert Sampler([10] * 8, 1, 0, 1).windows_at_once == 2
    assert Sampler([10] * 8, 1000, 0, 1).windows_at_once == 8


@pytest.mark.parametrize("window", [2, 100])
def test_epochs_and_seeds_differ(window):
    orders = [
        tuple(epoch_of(Sampler([50] * 10, 10, seed, window), epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len(set(orders)) == 4


def test_neighbors_are_scattered():
    order = permute(np.arange(10_000), 10_000, (0,))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05


def test_neighbors_are_scattered_within_and_between_shards():
    sampler = Sampler([500] * 20, 50, 3, 5)
    order = np.array(epoch_of(sampler)).astype(float)
    for column in (order[:, 0][:2500], order[:, 1]):
        assert abs(np.corrcoef(column[:-1], column[1:])[0, 1]) < 0.06
    for start in range(0, 10_000, 2500):
        assert len(set(order[start : start + 50, 0].tolist())) == 5


def test_all_orders_of_a_few_are_about_equally_likely():
    orders = [tuple(permute(np.arange(4), 4, (key,)).tolist()) for key in range(12_000)]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert 380 < min(counts) <= max(counts) < 620


def test_the_order_never_changes_by_accident():
    sampler = Sampler([3, 1, 4, 2], 4, 7, 2)
    assert samples(sampler, range(6)) == GOLDEN
    assert sampler.shards_by_need(0) == GOLDEN_SHARDS
    assert permute(np.arange(10), 10, (1, 2)).tolist() == GOLDEN_PERMUTATION
    assert uniforms(np.arange(2), 2, (5,)).tolist() == GOLDEN_UNIFORMS


def test_random_numbers_depend_on_place_and_key_alone():
    numbers = uniforms(np.arange(1000), 3, (1, 2))
    assert np.array_equal(uniforms(np.arange(500, 600), 4, (1, 2))[:, :3], numbers[500:600])
    assert not np.array_equal(uniforms(np.arange(1000), 3, (2, 1)), numbers)
    assert 0 <= numbers.min() < 0.01
    assert 0.99 < numbers.max() < 1
    assert np.abs(np.corrcoef(numbers.T) - np.eye(3)).max() < 0.1
    assert abs(np.corrcoef(numbers[1:, 0], numbers[:-1, 0])[0, 1]) < 0.1


@given(num_classes=st.integers(0, 500), world_size=st.integers(1, 17))
def test_classes_are_dealt_in_blocks_that_differ_by_at_most_one(num_classes, world_size):
    blocks = [partition_classes(num_classes, world_size, rank) for rank in range(world_size)]
    assert [c for block in blocks for c in block] == list(range(num_classes))
    sizes = [len(block) for block in blocks]
    assert max(sizes) - min(sizes) <= 1
