"""The lease: renewed while somebody waits for the ranks, watched by the watcher's own clock."""

import json
import threading
import time

import pytest

from plsc import storage
from plsc.errors import StorageError, TrainError
from plsc.train import lease

LASTS_S = 0.25


class Alarm(threading.Event):
    """Tells whether, and when, a lease was found stale."""

    def __init__(self):
        super().__init__()
        self.begin = time.monotonic()
        self.after_s = 0.0

    def __call__(self):
        self.after_s = time.monotonic() - self.begin
        self.set()


@pytest.fixture
def uri(tmp_path, monkeypatch):
    uri = str(tmp_path / "lease.json")
    monkeypatch.setenv(lease.LEASE_URI, uri)
    return uri


def eventually(is_so, patience_s=20):
    end = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_lease_changes_as_long_as_it_is_kept_and_is_gone_afterwards(uri):
    with lease.kept(uri, LASTS_S):
        eventually(lambda: storage.exists(uri))
        first = json.loads(storage.read_bytes(uri))
        eventually(lambda: json.loads(storage.read_bytes(uri))["count"] > first["count"] + 2)
    assert not storage.exists(uri)
    with lease.kept(uri, LASTS_S):
        eventually(lambda: storage.exists(uri))
        assert json.loads(storage.read_bytes(uri))["holder"] != first["holder"]


@pytest.mark.parametrize(
    ("end", "is_there"), [(TrainError("x"), False), (SystemExit(143), True), (None, False)]
)
def test_an_end_takes_the_lease_along_but_a_signal_leaves_it_to_the_next(uri, end, is_there):
    def keep():
        with lease.kept(uri, LASTS_S):
            eventually(lambda: storage.exists(uri))
            if end:
                raise end

    if end:
        with pytest.raises(type(end)):
            keep()
    else:
        keep()
    assert storage.exists(uri) is is_there


def test_a_kept_lease_is_never_stale(uri):
    alarm = Alarm()
    with lease.kept(uri, LASTS_S), lease.watched(4 * LASTS_S, alarm):
        assert not alarm.wait(8 * LASTS_S)


@pytest.mark.parametrize("content", [None, b"", b"the same"])
def test_a_lease_that_stays_the_same_or_away_is_stale(uri, content):
    if content is not None:
        storage.write_bytes(uri, content)
    alarm = Alarm()
    with lease.watched(LASTS_S, alarm):
        assert alarm.wait(20)
    assert alarm.after_s >= LASTS_S


def test_a_lease_that_is_removed_is_no_sign_of_life(uri):
    storage.write_bytes(uri, b"1")
    alarm = Alarm()
    with lease.watched(LASTS_S, alarm):
        storage.delete(uri)
        assert alarm.wait(20)


def test_a_store_that_cannot_be_asked_is_no_reason_to_stop(uri, monkeypatch, caplog):
    asked = threading.Semaphore(0)

    def refused(_):
        asked.release()
        raise StorageError("the store is away")

    monkeypatch.setattr(storage, "exists", refused)
    alarm = Alarm()
    with lease.watched(LASTS_S, alarm):
        for _ in range(12):
            assert asked.acquire(timeout=20)
        assert not alarm.is_set()
    assert "the lease could not be read: the store is away" in caplog.text


def test_a_store_that_refuses_the_lease_is_tried_again_and_told_once(uri, monkeypatch, caplog):
    write, refusals = storage.write_bytes, []

    def refused(*arguments):
        refusals.append(arguments)
        if len(refusals) < 4:
            raise StorageError("full")
        write(*arguments)

    monkeypatch.setattr(storage, "write_bytes", refused)
    with lease.kept(uri, LASTS_S):
        eventually(lambda: storage.exists(uri))
    assert caplog.text.count("the lease could not be renewed, is tried again: full") == 1


@pytest.mark.parametrize("content", [None, b"of one who is gone"])
def test_ranks_begin_when_they_have_seen_the_lease_change(uri, content):
    if content is not None:
        storage.write_bytes(uri, content)
    assert not lease.is_held(LASTS_S)
    with lease.kept(uri, LASTS_S):
        assert lease.is_held(60)


def test_without_the_variable_nobody_looks(monkeypatch):
    monkeypatch.delenv(lease.LEASE_URI, raising=False)
    assert lease.is_held(60)
    threads = threading.active_count()
    with lease.watched(LASTS_S, Alarm()):
        assert threading.active_count() == threads
