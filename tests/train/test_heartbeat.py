"""Signs of life between machines: who is silent ends training, who is slow does not."""

import os
import socket
import subprocess
import sys
import threading
from collections import Counter

import pytest

from plsc.train.heartbeat import Heartbeat, beating

INTERVAL_S, LIMIT_S = 0.02, 0.3

SILENT = """
import os, signal
from plsc.train import heartbeat
from plsc.train.process_group import joined
heartbeat.INTERVAL_S, heartbeat.LIMIT_S = 0.1, 1.5
heartbeat.Heartbeat.__init__.__kwdefaults__.update(interval_s=0.1, limit_s=1.5)
with joined(1) as ranks:
    ranks.wait()
    if ranks.rank == 1:
        print(flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)  # as a machine that lost its power: nothing is closed
    ranks.wait()
"""


class Store:
    """Counters that may be away for a while."""

    def __init__(self):
        self.counters = Counter()
        self.is_away = False
        self.asked = Counter()
        self._lock = threading.Lock()

    def add(self, key, amount):
        with self._lock:
            if self.is_away:
                raise RuntimeError("connection reset")
            self.asked[key, amount] += 1
            self.counters[key] += amount
            return self.counters[key]


class Group:
    """Heartbeats of some ranks over one store, and who was found silent by whom."""

    def __init__(self, ranks, world_size):
        self.store = Store()
        self.found = []
        self.is_found = threading.Event()
        self.beats = {
            rank: Heartbeat(
                self.store, rank, world_size, interval_s=INTERVAL_S, limit_s=LIMIT_S,
                on_silence=lambda who, rank=rank: self.tell(rank, who),
            )
            for rank in ranks
        }  # fmt: skip

    def tell(self, rank, who):
        self.found.append((rank, who))
        self.is_found.set()

    def __enter__(self):
        for beat in self.beats.values():
            beat.start()
        return self

    def __exit__(self, *_):
        for beat in self.beats.values():
            beat.end()
            beat.join()


def test_ranks_that_beat_are_left_alone():
    with Group(range(3), 3) as group:
        assert not group.is_found.wait(3 * LIMIT_S)
    assert ("plsc/heartbeat/2", 0) in group.store.asked  # rank 0 looks at all
    assert group.store.asked["plsc/heartbeat/1", 0] <= group.store.asked["plsc/heartbeat/0", 1] + 1


def test_rank_0_finds_who_is_silent_or_never_came():
    with Group([0, 1], 4) as group:
        assert group.is_found.wait(20)
    assert group.found[0] == (0, "2, 3")


def test_the_others_find_rank_0_silent():
    with Group([1, 2], 3) as group:
        assert group.is_found.wait(20)
    assert {who for _, who in group.found} == {"0"}


def test_a_store_that_is_away_for_a_moment_ends_nothing_and_for_long_everything():
    with Group([0, 1], 2) as group:
        group.store.is_away = True
        assert not group.is_found.wait(LIMIT_S / 3)
        group.store.is_away = False
        assert not group.is_found.wait(LIMIT_S)
        group.store.is_away = True
        assert group.is_found.wait(20)


def test_on_one_machine_there_is_no_heartbeat(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    threads = threading.active_count()
    with beating(0, 2):
        assert threading.active_count() == threads


@pytest.mark.slow
def test_a_rank_whose_peer_says_nothing_any_more_ends():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    place |= {"LOCAL_WORLD_SIZE": "1", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SILENT], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={**os.environ, **place, "RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said, _ = ranks[0].communicate(timeout=120)
        assert ranks[0].returncode == 1, said
        assert "lost contact with rank 1: no sign of life for 2 s" in said
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
