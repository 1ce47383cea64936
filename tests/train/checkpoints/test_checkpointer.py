"""Writing checkpoints: what happens meanwhile, what goes wrong, and what must be left behind."""

import logging
import os
import re
import resource
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from plsc import storage
from plsc.doorway import Stopwatch
from plsc.errors import StorageError
from plsc.storage import disk
from plsc.train.checkpoints import checkpointer as checkpointing
from plsc.train.checkpoints.checkpointer import Checkpointer
from plsc.train.checkpoints.resuming import load, resume
from plsc.train.checkpoints.retention import checkpoints_uri, index_uris, latest
from plsc.train.process_group import Ranks
from tests.train.ranks import on_ranks
from tests.train.states import ALONE, configured, copied, fresh, saved, stepped

GIVEN = {"epoch": 0, "dataset_uri": "x", "figures": {}}


@pytest.fixture(autouse=True)
def local(tmp_path, monkeypatch):
    """The folder of local files, of this test alone."""
    folder = tmp_path / "local"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    monkeypatch.undo()
    tempfile.tempdir = None


@pytest.fixture
def gate(monkeypatch):
    """Uploads wait until it is set."""
    opened = threading.Event()
    upload = storage.upload

    def waiting(path, uri):
        assert opened.wait(60)
        upload(path, uri)

    monkeypatch.setattr(storage, "upload", waiting)
    yield opened
    opened.set()


def test_training_goes_on_while_its_checkpoint_is_on_its_way(tmp_path, gate, local):
    config = configured(tmp_path)
    state = stepped(fresh(config))
    expected = copied(state.head.state_rows())
    with Checkpointer(config, ALONE, Stopwatch()) as checkpointer:
        checkpointer.save(state, **GIVEN)
        stepped(state)
        assert latest(config, "first") is None
        gate.set()
        checkpoint = checkpointer.finish()
    assert checkpoint == latest(config, "first")
    assert checkpoint.step == 2
    again = fresh(config)
    load(again, checkpoint)
    assert all(again.head.state_rows()[name].equal(expected[name]) for name in expected)
    assert not list(local.glob("plsc-*"))


def test_a_save_waits_for_the_one_before_and_says_how_long(tmp_path, gate, caplog):
    caplog.set_level(logging.INFO, "plsc")
    config = configured(tmp_path)
    state = fresh(config)
    with Checkpointer(config, ALONE, Stopwatch()) as checkpointer:
        state.step = 1
        checkpointer.save(state, **GIVEN)
        threading.Timer(2, gate.set).start()
        state.step = 2
        checkpointer.save(state, **GIVEN)
        assert min(index_uris(config, "first")) == 1
    assert re.search(r"waited \d+\.\d s for the checkpoint of step 1\b", caplog.text)
    assert list(index_uris(config, "first")) == [1, 2]


def test_nothing_saved_is_no_checkpoint(tmp_path):
    with Checkpointer(configured(tmp_path), ALONE, Stopwatch()) as checkpointer:
        assert checkpointer.finish() is None


def save_and_raise(config, error):
    with Checkpointer(config, ALONE, Stopwatch()) as checkpointer:
        checkpointer.save(fresh(config), **GIVEN)
        raise error


def test_an_error_of_training_lets_the_checkpoint_on_its_way_arrive(tmp_path, local):
    config = configured(tmp_path)
    with pytest.raises(ArithmeticError):
        save_and_raise(config, ArithmeticError)
    assert latest(config, "first").step == 0
    assert not list(local.glob("plsc-*"))


@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
def test_an_error_does_not_wait_for_a_store_that_hangs(
    tmp_path, gate, local, monkeypatch, caplog, error
):
    monkeypatch.setattr(checkpointing, "_GRACE_S", 0.2)
    config = configured(tmp_path)
    begin = time.monotonic()
    with pytest.raises(error):
        save_and_raise(config, error)
    assert time.monotonic() - begin < 5
    assert "the checkpoint of step 0 was given up" in caplog.text
    assert not list(local.glob("plsc-*"))
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "checkpoint-0":
            thread.join(20)
    assert latest(config, "first") is None


def test_a_store_that_refuses_is_told_at_the_next_save(tmp_path, local):
    (tmp_path / "store").write_text("a file where the folder should be")
    config = configured(tmp_path / "store")
    state = fresh(config)
    with Checkpointer(config, ALONE, Stopwatch()) as checkpointer:
        checkpointer.save(state, **GIVEN)
        with pytest.raises(StorageError, match=r"^checkpoint of step 0 failed: rank 0: "):
            checkpointer.save(state, **GIVEN)
    assert not list(local.glob("plsc-*"))


def test_an_error_of_ours_while_uploading_is_told_too(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "sha256_of_file", lambda path: path / 0)
    config = configured(tmp_path)
    with Checkpointer(config, ALONE, Stopwatch()) as checkpointer:
        checkpointer.save(fresh(config), **GIVEN)
        with pytest.raises(StorageError, match="step 0 failed: rank 0: TypeError: "):
            checkpointer.finish()


# --- several ranks ----------------------------------------------------------------------------


def full_disk(ranks, folder, when):
    """Rank 1's disk is full, for its snapshot or for the store; return what every rank is told."""
    config = configured(folder)
    state = fresh(config, ranks)
    first = saved(state, config, ranks)
    state.step = 2
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    upload = storage.upload

    def fill():
        if ranks.rank == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, unlimited[1]))

    def filling(path, uri):
        fill()
        upload(path, uri)

    storage.upload = filling if when == "upload" else upload
    try:
        with Checkpointer(config, ranks, Stopwatch()) as checkpointer:
            if when == "snapshot":
                fill()
            checkpointer.save(state, **GIVEN)
            checkpointer.finish()
    except StorageError as error:
        told = str(error)
    finally:
        storage.upload = upload
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    return first, told


@pytest.mark.slow
def test_a_full_disk_of_one_rank_is_told_by_all(tmp_path):
    messages = {
        "snapshot": "to this machine's disk",
        "upload": "head-0000000004.safetensors: File too large: check that the disk has room",
    }
    outcomes = on_ranks(2, full_disk, [(str(tmp_path / when), when) for when in messages])
    for (when, message), ((first, told), (other, told_too)) in zip(
        messages.items(), outcomes, strict=True
    ):
        assert first == other
        assert told == told_too
        assert told.startswith("checkpoint of step 2 failed: rank 1: ")
        assert message in told
        assert latest(configured(tmp_path / when), "first") == first


def refused(ranks, folder, environment):
    """Rank 1 has the wrong key; return what every rank is told."""
    os.environ.update(environment)
    if ranks.rank == 1:
        os.environ["AWS_SECRET_ACCESS_KEY"] = "wrong"
    config = configured(folder)
    with pytest.raises(StorageError) as told:
        saved(fresh(config, ranks), config, ranks)
    return str(told.value)


@pytest.mark.services
def test_a_store_that_refuses_one_rank_is_told_by_all(bucket_uri, object_store):
    case = (bucket_uri, object_store.environment())
    ((told, told_too),) = on_ranks(2, refused, [case])
    assert told == told_too
    assert told.startswith("checkpoint of step 0 failed: rank 1: s3://plsc/tests/")
    assert "the secret key is wrong" in told
    assert latest(configured(bucket_uri), "first") is None


# --- ranks that die ---------------------------------------------------------------------------


def run_until_death(rank, folder, port, how, queue):
    """Save step 2 well; then rank 1 dies while step 4 is on its way."""
    tempfile.tempdir = f"{folder}/local"
    torch.set_num_threads(1)
    checkpointing._GRACE_S = 1.0
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    ranks = Ranks(rank, 2, torch.device("cpu"))
    config = configured(folder)
    state = stepped(fresh(config, ranks), ranks)
    saved(state, config, ranks)
    copyfile = disk.shutil.copyfile

    def die_half_way(source, target):
        if rank == 0:
            copyfile(source, target)
            return
        content = Path(source).read_bytes()
        Path(target).write_bytes(content[: len(content) // 2])
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(30)  # the store hangs; training ends on an error

    disk.shutil.copyfile = die_half_way
    stepped(state, ranks)
    begin = time.monotonic()
    try:
        with Checkpointer(config, ranks, Stopwatch()) as checkpointer:
            checkpointer.save(state, **GIVEN)
            if rank == 1 and how == "raised":
                raise ArithmeticError
            checkpointer.finish()
    except (ArithmeticError, RuntimeError) as error:
        queue.put((rank, type(error).__name__, time.monotonic() - begin))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "raised"])
def test_a_rank_that_dies_while_uploading_damages_nothing(tmp_path, local, how):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("forkserver")
    queue = context.SimpleQueue()
    processes = [
        context.Process(target=run_until_death, args=(rank, str(tmp_path), port, how, queue))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode is not None, "hangs"
    told = {}
    while not queue.empty():
        rank, name, seconds = queue.get()
        told[rank] = name
        assert seconds < 20
    expected = {0: "DistBackendError"} | ({1: "ArithmeticError"} if how == "raised" else {})
    assert told.keys() == expected.keys(), told
    assert told.get(1) == expected.get(1)
    assert processes[1].exitcode == (-signal.SIGKILL if how == "killed" else 0)

    assert len(list(local.glob("plsc-*"))) == (how == "killed")
    config = configured(tmp_path)
    assert list(index_uris(config, "first")) == [2]
    state = fresh(config)
    assert resume(state, config).step == 2
    state.step = 6
    saved(state, config)
    assert not list(local.glob("plsc-*"))
    left = {path.name for path in Path(checkpoints_uri(config, "first")).iterdir()}
    assert left == {"step-00000002", "step-00000006"}
