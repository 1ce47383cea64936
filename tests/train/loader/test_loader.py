"""Batches: the same samples, changed the same, however many ranks and workers share them."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from plsc import storage
from plsc.errors import ConfigError, ShardError, TrainError
from plsc.train.loader import crew
from plsc.transforms import decode
from tests.train.loader.sets import SIZE, assert_same, configured, image, loaded, loader_of, written

CHANGES = (
    "train.augment.shift=2", "train.augment.crop=0.5", "train.augment.color=0.4",
    "train.augment.blur=0.5", "train.augment.grey=0.3",
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return written(tmp_path_factory.mktemp("set"))


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("world_size", [2, 3, 4, 7])
def test_ranks_share_the_batch_of_one_and_fill_up_with_what_does_not_count(
    dataset, tmp_path, world_size, micro_batches
):
    more = ("train.global_batch_size=10", "train.loader.window_shards=2", *CHANGES)
    ((_, images, labels, _),) = loaded(loader_of(dataset, tmp_path, *more), range(7, 8))
    more = (*more, f"train.micro_batches={micro_batches}")
    taken = []
    for rank in range(world_size):
        loader = loader_of(dataset, tmp_path, *more, rank=rank, world_size=world_size)
        taken += loaded(loader, range(7, 8))
    sizes = {len(of_rank) for _, _, of_rank, _ in taken}
    assert len(sizes) == 1
    assert sizes.pop() % micro_batches == 0
    assert np.array_equal(np.concatenate([kept[kept >= 0] for _, _, kept, _ in taken]), labels)
    assert np.array_equal(np.concatenate([mine[kept >= 0] for _, mine, kept, _ in taken]), images)


def test_a_rank_without_a_share_gets_images_that_do_not_count(dataset, tmp_path):
    loader = loader_of(dataset, tmp_path, rank=5, world_size=6)
    for _, images, labels, _ in loaded(loader, range(2)):
        assert images.shape == (1, SIZE, SIZE, 3)
        assert labels.tolist() == [-1]


def test_without_changes_every_image_comes_once_an_epoch_as_it_is(dataset, tmp_path):
    loader = loader_of(dataset, tmp_path, "train.augment.flip=false", "train.augment.shift=0")
    epoch = loaded(loader, range(loader.sampler.steps_per_epoch))
    pixels = [one for _, images, _, _ in epoch for one in images][: dataset.num_samples]
    labels = [one for _, _, of_step, _ in epoch for one in of_step][: dataset.num_samples]
    assert sorted(labels) == list(range(dataset.num_samples))
    for found, label in zip(pixels, labels, strict=True):
        assert np.array_equal(found, decode(image(label)))


@pytest.mark.parametrize("window", [1, 2, 32])
def test_the_number_of_workers_changes_no_byte(dataset, tmp_path, window):
    more = (*CHANGES, f"train.loader.window_shards={window}")
    steps = range(3, 30)
    expected = loaded(loader_of(dataset, tmp_path / "0", *more), steps)
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        loader = loader_of(dataset, folder, *more, f"train.loader.workers={workers}")
        assert_same(loaded(loader, steps), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_a_later_start_are_those_of_the_whole_run(dataset, tmp_path, workers):
    more = (*CHANGES, "train.loader.window_shards=2", f"train.loader.workers={workers}")
    whole = loaded(loader_of(dataset, tmp_path / "whole", *more), range(25))
    for start in (1, 9, 17):
        rest = loaded(loader_of(dataset, tmp_path / f"{start}", *more), range(start, 25))
        assert_same(rest, whole[start:])


def test_no_steps_are_no_batches(dataset, tmp_path):
    assert loaded(loader_of(dataset, tmp_path, "train.loader.workers=1"), range(5, 5)) == []


def workers_of(pid):
    return [
        child
        for child in psutil.Process(pid).children()
        if "plsc.train.loader.worker" in child.cmdline()
    ]


def test_workers_load_neither_torch_nor_hydra(dataset, tmp_path):
    batches = loader_of(dataset, tmp_path, "train.loader.workers=1").batches(range(9))
    next(batches)
    (worker,) = workers_of(os.getpid())
    mapped = {Path(region.path).name for region in worker.memory_maps()}
    assert not [name for name in mapped if "torch" in name]
    assert worker.memory_info().rss < 200e6
    batches.close()
    assert not worker.is_running()
    code = "import sys, plsc.train.loader.worker; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not set(loaded.stdout.split()) & {"torch", "hydra", "boto3", "omegaconf"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_named_at_once(dataset, tmp_path, workers):
    batches = loader_of(dataset, tmp_path, f"train.loader.workers={workers}").batches(range(10**6))
    for _ in range(3):
        next(batches)
    victim = workers_of(os.getpid())[-1]
    victim.kill()
    begin = time.monotonic()
    with pytest.raises(TrainError, match=rf"pid {victim.pid}\) was killed by SIGKILL.*memory"):
        list(batches)
    assert time.monotonic() - begin < 5
    assert not workers_of(os.getpid())


def test_a_worker_that_fails_is_named_with_its_code(dataset, tmp_path, capfd):
    made = crew.ProcessCrew(loader_of(dataset, tmp_path)._plan, 1)
    with made:
        made._send(0, "no step\n")
        with pytest.raises(TrainError, match=r"worker 0 of 1 .* ended with code 1"):
            made.result(0)
    assert "JSONDecodeError" in capfd.readouterr().err


def test_workers_of_a_killed_rank_end_too(tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.train.loader.sets import *\n"
        "folder = Path(sys.argv[1])\n"
        "loader = loader_of(written(folder / 'set'), folder, 'train.loader.workers=2')\n"
        "for batch in loader.batches(range(10**6)):\n"
        "    print(batch.step, flush=True)\n"
        "    time.sleep(0.01)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as rank:
        for _ in range(3):
            assert rank.stdout.readline()
        workers = workers_of(rank.pid)
        assert len(workers) == 2
        os.kill(rank.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def test_a_shard_whose_file_vanishes_is_fetched_again(dataset, tmp_path, caplog):
    more = ("train.loader.window_shards=2", "train.loader.workers=1")
    expected = loaded(loader_of(dataset, tmp_path / "calm", *more), range(30))
    loader = loader_of(dataset, tmp_path, *more)
    found = []
    for batch in loader.batches(range(30)):
        found.append((batch.step, batch.images.copy(), batch.labels.copy(), batch.num_replaced))
        for path in (tmp_path / "cache").glob("*.arrow"):
            path.unlink()
    assert_same(found, expected)
    assert "vanished" in caplog.text


def test_a_label_beyond_the_classes_is_refused(tmp_path):
    dataset = written(tmp_path / "set", num_classes=20)
    loader = loader_of(dataset, tmp_path)
    with pytest.raises(ShardError, match=r"holds labels \d+\.\.\d+, .* 20 classes, 0\.\.19"):
        loaded(loader, range(11))


def test_a_shard_of_another_size_than_the_index_says_is_refused(tmp_path):
    dataset = written(tmp_path / "set")
    wrong = dataset.shards[2].model_copy(update={"num_samples": 8})
    shards = [*dataset.shards[:2], wrong, *dataset.shards[3:]]
    loader = loader_of(dataset.model_copy(update={"shards": shards}), tmp_path)
    with pytest.raises(ShardError, match=r"shard-2.arrow has 9 samples, the index says 8"):
        loaded(loader, range(11))


def test_a_file_of_the_right_digest_that_is_no_shard_is_named(tmp_path):
    dataset = written(tmp_path / "set")
    content = Path(dataset.shards[1].uri).read_bytes()[:-200]
    Path(dataset.shards[1].uri).write_bytes(content)
    changed = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    dataset.shards[1] = dataset.shards[1].model_copy(update=changed)
    with pytest.raises(ShardError, match=r"shard-1\.arrow has the digest .* but is no shard"):
        loaded(loader_of(dataset, tmp_path), range(3))


def test_a_limit_below_what_is_needed_at_once_is_refused_before_anything_is_fetched(
    dataset, tmp_path
):
    size_gib = sum(shard.size_bytes for shard in dataset.shards) / 2**30
    small = f"train.loader.cache_gib={size_gib / 2}"
    with pytest.raises(ConfigError, match=r"2 windows of 2 shards .* train.loader.window_shards=2"):
        loader_of(dataset, tmp_path, small, "train.loader.window_shards=2")
    with pytest.raises(ConfigError, match=r"train.loader.cache_gib=\S+, but up to 1 windows of 6"):
        loader_of(dataset, tmp_path, small)
    loader_of(dataset, tmp_path, small, "train.loader.window_shards=1")
    assert not list((tmp_path / "cache").glob("*.arrow"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("train.augment.crop=0", "train.augment.crop must be greater than 0"),
        ("train.augment.crop=1.1", r"train.augment.crop must lie in 0\.\.1"),
        ("train.augment.grey=-0.1", "train.augment.grey must lie in"),
        ("train.augment.shift=16", r"train.augment.shift must lie in 0\.\.15"),
        ("train.loader.workers=-1", "train.loader.workers must not be negative"),
        ("train.loader.window_shards=0", "train.loader.window_shards must be greater than 0"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, wrong, message):
    with pytest.raises(ConfigError, match=message):
        configured(tmp_path, wrong)


def test_many_shards_at_once_need_no_larger_limits_of_the_process(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    dataset = written(tmp_path / "set", (1,) * 150)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        more = ("train.loader.window_shards=200", "train.loader.workers=1")
        batches = loaded(loader_of(dataset, tmp_path, *more), range(5))
        assert len(batches) == 5
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_shards_at_once_than_files_may_be_open_are_refused(tmp_path, monkeypatch):
    dataset = written(tmp_path / "set", (1,) * 150)
    num_open = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    monkeypatch.setattr(resource, "getrlimit", lambda _: (200, num_open + 280))
    with pytest.raises(ConfigError, match=r"train.loader.window_shards=200: 300 files .*ulimit"):
        loader_of(dataset, tmp_path, "train.loader.window_shards=200")


def test_waiting_for_shards_is_counted_and_told(dataset, tmp_path, monkeypatch, caplog):
    open_reader = storage.open_reader

    def slowly(uri, **more):
        time.sleep(0.3)
        return open_reader(uri, **more)

    monkeypatch.setattr(storage, "open_reader", slowly)
    caplog.set_level("INFO")
    loader = loader_of(dataset, tmp_path)
    loaded(loader, range(2))
    assert 1.5 < loader.waited_s < 10
    assert "step 0 waits for shards, which come at 0 MB/s; waited" in caplog.text
