"""The cache: bounded, shared, checked, and never half-written, whatever goes wrong."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from plsc import storage
from plsc.errors import ShardError, StorageError
from plsc.train.loader import cache as caching
from plsc.train.loader import prefetch
from plsc.train.loader.cache import ShardCache
from tests.faults import FaultProxy, behind, busy, cut
from tests.train.loader.sets import assert_same, loaded, loader_of, written

SIZES = (6,) * 12
WINDOW = "train.loader.window_shards=2"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return written(tmp_path_factory.mktemp("set"), SIZES)


def limit_of(dataset, shards):
    """Return the setting for room for so many of the largest shards."""
    size = max(shard.size_bytes for shard in dataset.shards)
    return f"train.loader.cache_gib={shards * size / 2**30}"


def used(folder):
    """Return the bytes in the cache; files may come and go."""
    total = 0
    for path in folder.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def downloads(monkeypatch):
    """Record what is read from the store."""
    read, open_reader = [], storage.open_reader

    def recording(uri, **more):
        read.append(uri)
        return open_reader(uri, **more)

    monkeypatch.setattr(storage, "open_reader", recording)
    return read


@pytest.mark.parametrize("workers", [0, 1])
def test_the_limit_is_kept_on_a_set_larger_than_the_cache(dataset, tmp_path, workers):
    expected = loaded(loader_of(dataset, tmp_path / "large", WINDOW), range(55))
    more = (WINDOW, limit_of(dataset, 4), f"train.loader.workers={workers}")
    loader = loader_of(dataset, tmp_path / "small", *more)
    folder, limit = tmp_path / "small/cache", 4 * max(s.size_bytes for s in dataset.shards)
    most, is_over = 0, threading.Event()

    def watch():
        nonlocal most
        while not is_over.is_set():
            most = max(most, used(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = loaded(loader, range(55))  # three epochs of 18 steps
    is_over.set()
    watcher.join()
    assert_same(found, expected)
    assert 0 < most <= limit


def test_without_a_limit_every_shard_is_fetched_once(dataset, tmp_path, monkeypatch):
    read = downloads(monkeypatch)
    loaded(loader_of(dataset, tmp_path, WINDOW), range(55))
    assert sorted(read) == sorted(shard.uri for shard in dataset.shards)


def test_a_later_process_uses_what_is_there_after_checking_it(dataset, tmp_path, monkeypatch):
    expected = loaded(loader_of(dataset, tmp_path, WINDOW), range(18))
    paths = sorted((tmp_path / "cache").glob("*.arrow"))
    assert len(paths) == 12
    content = bytearray(paths[3].read_bytes())
    content[len(content) // 2] ^= 1
    paths[3].write_bytes(content)
    paths[5].write_bytes(paths[5].read_bytes()[:-100])
    for path in paths:
        os.utime(path, (1, 1))
    read = downloads(monkeypatch)
    assert_same(loaded(loader_of(dataset, tmp_path, WINDOW), range(18)), expected)
    names = {shard.sha256: shard.uri for shard in dataset.shards}
    assert sorted(read) == sorted(names[path.stem] for path in (paths[3], paths[5]))


@pytest.mark.parametrize("change", ["altered", "cut", "longer", "gone"])
def test_a_shard_that_is_not_what_the_index_says_is_refused(tmp_path, change):
    dataset = written(tmp_path / "set", SIZES)
    path = Path(dataset.shards[4].uri)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    contents = {"altered": content, "cut": content[:-9], "longer": content + b"more"}
    path.unlink() if change == "gone" else path.write_bytes(contents[change])
    expected = StorageError if change == "gone" else ShardError
    with pytest.raises(expected, match=r"shard-4\.arrow"):
        loaded(loader_of(dataset, tmp_path, WINDOW), range(18))
    assert not list((tmp_path / "cache").glob(".*.part"))
    assert not (tmp_path / "cache" / f"{dataset.shards[4].sha256}.arrow").exists()


LOAD = """
import sys
from pathlib import Path
from tests.train.loader.sets import *
folder, turn = Path(sys.argv[1]), int(sys.argv[2])
dataset = written(folder / 'set', (6,) * 12)
sys.stdin.readline()
loader = loader_of(dataset, folder, *sys.argv[3:], rank=turn, world_size=2)
for batch in loader.batches(range(18)):
    print(batch.labels.sum(), hash(batch.images.tobytes()), flush=True)
"""


def started(folder, turn, *overrides):
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONHASHSEED": "0"
    }  # fmt: skip
    command = [sys.executable, "-c", LOAD, str(folder), str(turn), *overrides]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )


@pytest.mark.parametrize("room", [0, 4])
def test_processes_share_a_cache(dataset, tmp_path, room):
    more = (WINDOW, "train.global_batch_size=8")
    more += (limit_of(dataset, room),) if room else ()
    written(tmp_path / "set", SIZES)
    together = [started(tmp_path, turn, *more) for turn in (0, 1)]
    for process in together:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0] for process in together]
    for process in together:
        assert process.returncode == 0
    for turn in (0, 1):
        alone = started(tmp_path, turn, WINDOW, "train.global_batch_size=8")
        assert alone.communicate("go\n", timeout=120)[0] == said[turn]
        assert len(said[turn].splitlines()) == 18
    files = list((tmp_path / "cache").iterdir())
    assert not [path for path in files if path.suffix == ".part"]
    assert room or len(files) == 13


def test_what_a_killed_process_left_half_written_is_removed(dataset, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / ".left.part").write_bytes(b"half")
    with (folder / ".held.part").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as a process does that is at it
        ShardCache(folder, 0)
        assert {path.name for path in folder.iterdir()} == {".held.part", ".lock"}
    (folder / ".held.part").unlink()
    (folder / f".{dataset.shards[0].sha256}.part").write_bytes(b"half")
    fetched = ShardCache(folder, 0).fetched(dataset.shards[0], list, is_stopped=lambda: False)
    assert fetched.path.read_bytes() == Path(dataset.shards[0].uri).read_bytes()
    fetched.release()


def test_what_another_process_fetches_is_not_fetched_twice(dataset, tmp_path):
    shards, cache = dataset.shards, ShardCache(tmp_path / "cache", 0)
    with (tmp_path / "cache" / f".{shards[0].sha256}.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert cache.fetched(shards[0], list, is_stopped=lambda: False) is None


def test_those_in_use_stay_and_of_the_others_those_needed_last_go_first(dataset, tmp_path):
    shards, room = dataset.shards, 4 * max(shard.size_bytes for shard in dataset.shards)
    cache = ShardCache(tmp_path / "cache", room)
    order = [shard.sha256 for shard in shards[:10]]

    def fetched(number):
        return cache.fetched(shards[number], lambda: order, is_stopped=lambda: False)

    def here():
        return {n for n, shard in enumerate(shards)
                if (cache.folder / f"{shard.sha256}.arrow").exists()}  # fmt: skip

    held = {number: fetched(number) for number in (2, 11, 0, 5)}
    assert here() == {0, 2, 5, 11}
    for number in (2, 11, 0):
        held[number].release()
    fetched(7).release()
    assert here() == {0, 2, 5, 7}  # nobody asked for 11
    fetched(1).release()
    assert here() == {0, 1, 2, 5}
    fetched(3).release()
    assert here() == {0, 1, 3, 5}  # 5 is held
    others = [fetched(number) for number in (6, 8, 9)]
    with pytest.raises(caching.NoRoomError, match=r"more than the limit"):
        fetched(4)
    assert here() == {5, 6, 8, 9}
    for one in (*others, held[5]):
        one.release()


def test_a_run_goes_beyond_the_limit_rather_than_stop_for_what_others_hold(
    dataset, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(prefetch, "_PATIENCE_S", 0.4)
    shards, cache = dataset.shards, ShardCache(tmp_path / "cache", 0)
    held = [cache.fetched(one, list, is_stopped=lambda: False) for one in shards[:4]]
    loader = loader_of(dataset, tmp_path, WINDOW, limit_of(dataset, 4))
    assert len(loaded(loader, range(54))) == 54  # 18 windows
    assert 0.4 < loader.waited_s < 4  # not in every window
    assert caplog.text.count("beyond the limit") == 1
    for one in held:
        one.release()


def kept_mapped(folder):
    """Return the bytes of removed files that this process or a child of it still maps."""
    sizes = {}
    for process in (psutil.Process(), *psutil.Process().children()):
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            if f"{folder}/" in line and line.endswith("(deleted)"):
                span, _, _, _, number, *_ = line.split()
                start, stop = (int(end, 16) for end in span.split("-"))
                sizes[number] = stop - start
    return sum(sizes.values())


class FullDisk:
    """A disk with room for so many bytes of shards, those removed but in use included."""

    def __init__(self, folder, monkeypatch, room):
        self.folder, self.room, self.allocate = folder, room, os.posix_fallocate
        monkeypatch.setattr(os, "posix_fallocate", self.posix_fallocate)

    def posix_fallocate(self, descriptor, offset, size):
        if used(self.folder) + kept_mapped(self.folder) + size > self.room:
            raise OSError(28, "No space left on device")
        self.allocate(descriptor, offset, size)


def test_a_full_disk_makes_room_by_what_is_not_needed_now(dataset, tmp_path, monkeypatch):
    expected = loaded(loader_of(dataset, tmp_path / "large", WINDOW), range(40))
    loader = loader_of(dataset, tmp_path, WINDOW)
    FullDisk(tmp_path / "cache", monkeypatch, 4 * max(s.size_bytes for s in dataset.shards))
    assert_same(loaded(loader, range(40)), expected)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_disk_with_room_for_two_windows_is_enough(dataset, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(prefetch, "_PATIENCE_S", 2)
    size = max(shard.size_bytes for shard in dataset.shards)
    loader = loader_of(dataset, tmp_path, WINDOW, f"train.loader.workers={workers}")
    FullDisk(tmp_path / "cache", monkeypatch, 4 * size + 3 * 4096)  # a map ends with a page
    assert len(loaded(loader, range(40))) == 40
    assert loader.waited_s < 5


def test_a_disk_that_has_not_the_room_for_what_is_needed_at_once_ends_training(
    dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(prefetch, "_PATIENCE_S", 0.2)
    loader = loader_of(dataset, tmp_path, WINDOW)
    FullDisk(tmp_path / "cache", monkeypatch, dataset.shards[0].size_bytes * 1.5)
    with pytest.raises(StorageError) as failure:
        loaded(loader, range(18))
    for words in ("the disk has no room", "needs", "GiB for 4 shards", "train.loader.cache_path",
                  "train.loader.window_shards", str(tmp_path / "cache")):  # fmt: skip
        assert words in str(failure.value)
    assert not list((tmp_path / "cache").glob(".*.part"))


def test_files_larger_than_allowed_end_training(tmp_path):
    loader = loader_of(written(tmp_path / "set", (60, 60)), tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"File too large.*train.loader.cache_path"):
            loaded(loader, range(18))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list((tmp_path / "cache").glob(".*.part"))


def test_a_folder_that_cannot_be_made_is_refused(dataset, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match=r"train\.loader\.cache_path"):
        loader_of(dataset, tmp_path)


def test_what_lies_in_the_folder_is_looked_through_once_at_most(dataset, tmp_path, monkeypatch):
    scans, scandir = [], os.scandir

    def recording(folder):
        scans.append(folder)
        return scandir(folder)

    def fetch(cache, shard):
        scans.clear()
        cache.fetched(shard, list, is_stopped=lambda: False).release()
        return len(scans)

    monkeypatch.setattr(os, "scandir", recording)
    monkeypatch.setattr(Path, "iterdir", lambda _: pytest.fail("looked through in another way"))
    shards, size = dataset.shards, max(shard.size_bytes for shard in dataset.shards)
    cache = ShardCache(tmp_path / "cache", 0)
    assert [fetch(cache, shard) for shard in shards[:6]] == [0] * 6
    cache = ShardCache(tmp_path / "cache", 2 * size)
    assert fetch(cache, shards[7]) == 1  # and five are removed
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 2


def test_the_end_does_not_wait_for_a_request_that_stalls(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(prefetch, "_GRACE_S", 0.1)
    loader = loader_of(dataset, tmp_path, WINDOW)
    stalls, goes_on, open_reader = threading.Event(), threading.Event(), storage.open_reader

    def stalling(uri, **more):
        if len(list((tmp_path / "cache").glob("*.arrow"))) == 2:
            stalls.set()
            goes_on.wait(60)
        return open_reader(uri, **more)

    monkeypatch.setattr(storage, "open_reader", stalling)
    batches = loader.batches(range(18))
    next(batches)
    assert stalls.wait(10)
    (thread,) = [one for one in threading.enumerate() if one.name == "shards"]
    begin = time.monotonic()
    batches.close()
    assert time.monotonic() - begin < 3
    goes_on.set()
    thread.join(10)
    for path in (tmp_path / "cache").iterdir():
        assert path.suffix != ".part"
        with path.open("rb") as file:
            fcntl.flock(file, caching.TRY)  # nothing is held


def nfs(descriptor, operation):
    """Lock for one alone only what may be written, as flock(2) says of NFS."""
    is_read_only = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    if operation & fcntl.LOCK_EX and is_read_only:
        raise OSError(errno.EBADF, "Bad file descriptor")
    flock(descriptor, operation)


flock = fcntl.flock


def test_a_folder_on_nfs_serves(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", nfs)
    assert len(loaded(loader_of(dataset, tmp_path, WINDOW, limit_of(dataset, 4)), range(18))) == 18


def no_locks(*_):
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def test_a_folder_without_locks_is_refused_at_once(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(StorageError, match=r"not supported: set train\.loader\.cache_path"):
        loader_of(dataset, tmp_path)


@pytest.mark.parametrize("name", ["{}.arrow", ".{}.part"])
def test_a_folder_in_the_place_of_a_shard_is_told(dataset, tmp_path, name):
    loader = loader_of(dataset, tmp_path)
    (tmp_path / "cache" / name.format(dataset.shards[0].sha256)).mkdir()
    with pytest.raises(StorageError, match=r"Is a directory: set train\.loader\.cache_path"):
        loaded(loader, range(3))


def test_locks_that_fail_later_are_told_and_leave_nothing_open(dataset, tmp_path, monkeypatch):
    shard, cache = dataset.shards[0], ShardCache(tmp_path / "cache", 0)
    cache.fetched(shard, list, is_stopped=lambda: False).release()
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    monkeypatch.setattr(fcntl, "flock", no_locks)
    for look in (cache.held, lambda one: cache.fetched(one, list, is_stopped=lambda: False)):
        with pytest.raises(StorageError, match=r"train\.loader\.cache_path"):
            look(shard)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_what_another_process_put_in_the_place_of_a_file_is_not_removed(tmp_path, monkeypatch):
    part = tmp_path / ".one.part"
    part.write_bytes(b"old")

    def meanwhile(descriptor, operation):
        if os.pread(descriptor, 3, 0) == b"old":  # its holder renames it, and another begins anew
            part.unlink()
            part.write_bytes(b"new")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    ShardCache(tmp_path, 0)
    assert part.read_bytes() == b"new"


@pytest.mark.services
def test_a_store_that_falters_changes_nothing(
    dataset, tmp_path, bucket_uri, object_store, monkeypatch
):
    expected = loaded(loader_of(dataset, tmp_path / "disk", WINDOW), range(20))
    remote = written(bucket_uri, SIZES)
    faults = [busy(path="shard-", every=4), cut(path="shard-", after_bytes=500, every=3)]
    with FaultProxy(object_store.s3_endpoint, faults) as proxy, behind(proxy, monkeypatch):
        loader = loader_of(remote, tmp_path, WINDOW, limit_of(dataset, 4))
        assert_same(loaded(loader, range(20)), expected)
        assert proxy.injected["busy"]
        assert proxy.injected["cut"]
