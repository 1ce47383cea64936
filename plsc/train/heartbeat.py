"""Signs of life between the ranks of several machines.

A process that dies closes its connections, and the others notice at once. A machine that loses its
power or its network closes nothing: without a sign of life the others would wait for it for as long
as TCP, or the process group, has patience.
"""

import datetime as dt
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch.distributed as dist

__all__ = ["Heartbeat", "beating"]

log = logging.getLogger(__name__)

INTERVAL_S = 5.0
LIMIT_S = 90.0
"""Longest silence. A rank beats in a thread: it is not silent because a step takes long."""


class Counters(Protocol):
    """What a heartbeat needs of torch's store: counters under names."""

    def add(self, key: str, amount: int, /) -> int:
        """Add to the counter ``key`` (0 at first) and return it."""


class Heartbeat(threading.Thread):
    """Counts up this rank's counter, and watches those of others.

    Rank 0 watches all others and they watch rank 0, so that the traffic grows with the number of
    ranks and not with its square: what rank 0 misses ends rank 0, and with it all others.
    """

    def __init__(
        self,
        counters: Counters,
        rank: int,
        world_size: int,
        *,
        on_silence: Callable[[str], None],
        interval_s: float = INTERVAL_S,
        limit_s: float = LIMIT_S,
    ) -> None:
        """Prepare to beat for ``rank``.

        Args:
            counters: Shared by all ranks; used by this thread alone. May fail, which counts as the
                silence of those who could not be asked.
            rank: This rank.
            world_size: All ranks.
            on_silence: Told, once, who was silent for ``limit_s``.
            interval_s: Seconds between beats.
            limit_s: Longest silence, in seconds.
        """
        super().__init__(name="heartbeat", daemon=True)
        self._counters = counters
        self._own = rank
        self._watched = range(1, world_size) if rank == 0 else range(1)
        self._on_silence = on_silence
        self._interval_s = interval_s
        self._limit_s = limit_s
        self._is_over = threading.Event()

    def run(self) -> None:
        """Beat and watch until ``end``, or until somebody is silent for too long."""
        start = time.monotonic()
        seen = dict.fromkeys(self._watched, (0, start))
        while not self._is_over.wait(self._interval_s):
            try:
                self._counters.add(self._key(self._own), 1)
                for rank in self._watched:
                    count = self._counters.add(self._key(rank), 0)
                    if count != seen[rank][0]:
                        seen[rank] = (count, time.monotonic())
            except (dist.DistError, RuntimeError) as error:
                log.debug("the ranks' store: %s", error)
            now = time.monotonic()
            silent = [str(r) for r, (_, since) in seen.items() if now - since > self._limit_s]
            if silent and not self._is_over.is_set():
                self._on_silence(", ".join(silent))
                return

    def end(self) -> None:
        """Stop, without waiting for a store that may be gone."""
        self._is_over.set()

    @staticmethod
    def _key(rank: int) -> str:
        return f"plsc/heartbeat/{rank}"


@contextmanager
def beating(rank: int, world_size: int) -> Iterator[None]:
    """Exchange signs of life in the block, if the ranks run on several machines.

    A rank whose peer is silent for ``LIMIT_S`` ends there and then: its main thread waits inside a
    collective that nothing interrupts.

    Args:
        rank: This rank, in a process group that exists.
        world_size: All ranks.
    """
    if world_size == int(os.environ.get("LOCAL_WORLD_SIZE", world_size)):
        yield
        return
    # A connection of its own: the process group's is blocked for as long as one of its calls waits.
    store = dist.TCPStore(  # type: ignore[attr-defined]  # it is public all the same
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        timeout=dt.timedelta(seconds=LIMIT_S / 2),
    )
    heartbeat = Heartbeat(store, rank, world_size, on_silence=_end_process)
    heartbeat.start()
    try:
        yield
    finally:
        heartbeat.end()


def _end_process(who: str) -> None:
    log.error("lost contact with rank %s: no sign of life for %.0f s", who, LIMIT_S)
    os._exit(1)
