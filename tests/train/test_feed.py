"""Batches on their way to the device."""

import fcntl
import os
import time
from contextlib import closing
from unittest.mock import MagicMock

import numpy as np
import psutil
import pytest
import torch

from plsc.train import feed as feeding
from plsc.train.feed import DeviceBatch, feed
from tests.train.loader.sets import loaded, loader_of, written

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return written(tmp_path_factory.mktemp("set"))


def assert_fed(batches, expected):
    for batch, (step, images, labels, replaced) in zip(batches, expected, strict=True):
        assert batch.step == step
        assert batch.images_BSS3.dtype == torch.uint8
        assert np.array_equal(batch.images_BSS3.cpu().numpy(), images)
        assert np.array_equal(batch.labels_B.cpu().numpy(), labels)
        assert batch.num_replaced == replaced


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_arrive_as_they_were_made(dataset, tmp_path, workers):
    loader = loader_of(dataset, tmp_path, f"train.loader.workers={workers}")
    assert_fed(feed(loader, range(2, 30), CPU), loaded(loader, range(2, 30)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_batches_arrive_on_a_gpu_as_they_were_made(dataset, tmp_path):
    loader = loader_of(dataset, tmp_path, "train.loader.workers=1")
    expected = loaded(loader, range(2, 30))
    assert_fed(feed(loader, range(2, 30), torch.device("cuda", 0)), expected)


def test_workers_end_when_training_stops_in_between(dataset, tmp_path):
    loader = loader_of(dataset, tmp_path, "train.loader.workers=2")
    with closing(feed(loader, range(10**6), CPU)) as batches:
        next(batches)
        workers = psutil.Process(os.getpid()).children()
        assert len(workers) >= 2
    assert not [one for one in workers if "plsc.train.loader.worker" in cmdline(one)]


class Copier:
    """Stands for that of a GPU; of the batches only the steps are real."""

    def __init__(self, device):
        pass

    def copy_next(self, batches):
        step, _, _, num_replaced = next(batches)
        return DeviceBatch(step, MagicMock(), MagicMock(), num_replaced), None


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_end_does_not_wait_for_a_shard_that_never_comes(dataset, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(feeding, "_Copier", Copier)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: MagicMock())
    loader = loader_of(dataset, tmp_path, "train.loader.window_shards=1")
    missing = dataset.shards[loader.sampler.shards(2)[0]].sha256
    with (tmp_path / "cache" / f".{missing}.part").open("wb") as hung:  # a process that hangs
        fcntl.flock(hung, fcntl.LOCK_EX)
        with closing(feed(loader, range(12), torch.device(kind))) as batches:
            while 2 not in loader.sampler.windows(next(batches).step + 1):
                pass
            time.sleep(0.2)  # until the thread waits for the next batch
            begin = time.monotonic()
        assert time.monotonic() - begin < 3


def cmdline(process):
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
