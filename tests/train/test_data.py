"""Batches: the same samples, drawn and changed the same, however many ranks share them."""

import pytest
import torch

from plsc.artifacts.shards import ShardSet
from plsc.train.data import TrainingData, batches
from plsc.train.process_group import Ranks
from plsc.train.sampler import Sampler


@pytest.fixture(scope="module")
def data(place, tmp_path_factory):
    dataset = ShardSet.read(f"{place.store}/runs/shards/preprocess/index.json")
    return TrainingData(dataset, tmp_path_factory.mktemp("cache"))


def shares(place, data, world_size, *overrides):
    """Return (images, labels) of one step on every rank."""
    config = place.config("batches", "train.global_batch_size=10", "train.flip=true", *overrides)
    sampler = Sampler(data.dataset.num_samples, 10, config.seed)
    taken = []
    for rank in range(world_size):
        ranks = Ranks(rank, world_size, torch.device("cpu"))
        ((_, images, labels),) = batches(data, sampler, config, range(7, 8), ranks)
        taken.append((images, labels))
    return taken


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("world_size", [2, 3, 4, 7])
def test_ranks_share_the_batch_of_one_and_fill_up_with_what_does_not_count(
    place, data, world_size, micro_batches
):
    ((images, labels),) = shares(place, data, 1)
    taken = shares(place, data, world_size, f"train.micro_batches={micro_batches}")
    sizes = {len(of_rank) for _, of_rank in taken}
    assert len(sizes) == 1
    assert sizes.pop() % micro_batches == 0
    assert torch.equal(torch.cat([mine[mine >= 0] for _, mine in taken]), labels)
    assert torch.equal(torch.cat([mine[kept >= 0] for mine, kept in taken]), images)
    assert all(mine.isfinite().all() for mine, _ in taken)


def test_a_rank_without_a_share_gets_images_that_do_not_count(place, data):
    _, (images, labels) = shares(place, data, 11)[-2:]
    assert images.shape == (1, 3, 32, 32)
    assert labels.tolist() == [-1]
