"""The lease of a training on a cluster: ranks do not train on when whoever started them is gone.

The step that waits for the ranks writes a small object, anew and different, every few seconds.
Rank 0 begins when it has seen a change, and looks at it now and then. When it has been the same
for ``train.lease_s`` by rank 0's own clock, nobody waits for the ranks any more, and they stop. The
clocks of the two machines are never compared.
"""

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from plsc import storage
from plsc.artifacts.index import now
from plsc.conf.schema import PipelineConfig
from plsc.errors import StorageError

__all__ = ["LEASE_URI", "is_held", "kept", "lease_uri", "watched"]

log = logging.getLogger(__name__)

LEASE_URI = "PLSC_LEASE_URI"
"""Environment variable of the ranks: the lease to look at. Without it there is none."""

_SIGNS = 5
"""Signs of life within the time that a lease lasts: so many may get lost, less one."""
_RENEW_S = 3.0
"""Between signs, and looks, at most: ranks wait for one before they train."""
_LOOK_S = 60.0
"""Longest time between looks while they train."""
_LONGEST_WAIT_S = 1200.0
"""Longest wait for a sign at the beginning: the other ranks' patience is half an hour."""


def lease_uri(config: PipelineConfig) -> str:
    """Return where the lease of this run's training lies."""
    return storage.join(config.store_uri, "runs", config.run_id, "train", "lease.json")


@contextmanager
def kept(uri: str, lasts_s: float) -> Iterator[None]:
    """Renew the lease at ``uri`` in the block, from a thread; a store that refuses is waited for.

    An ended training must not look alive, so the lease is gone afterwards. It stays when a signal
    ends the block: there is no time then, and the ranks may be left to a successor.

    Args:
        uri: The lease.
        lasts_s: How long one renewal holds, in seconds.
    """
    is_over = threading.Event()
    every_s = min(lasts_s / _SIGNS, _RENEW_S)
    thread = threading.Thread(
        target=_renew, args=(uri, every_s, is_over), name="lease", daemon=True
    )
    thread.start()
    is_killed = False
    try:
        yield
    except BaseException as error:
        is_killed = not isinstance(error, Exception)
        raise
    finally:
        is_over.set()
        if not is_killed:
            thread.join(every_s)
            _remove(uri)


def _renew(uri: str, every_s: float, is_over: threading.Event) -> None:
    holder, count, is_refused = uuid.uuid4().hex, 0, False
    while True:
        count += 1
        content = json.dumps({"holder": holder, "count": count, "at": now()})
        try:
            storage.write_bytes(uri, content.encode())
            is_refused = False
        except StorageError as error:
            if not is_refused:
                log.warning("the lease could not be renewed, is tried again: %s", error)
            is_refused = True
        if is_over.wait(every_s):
            return


def _remove(uri: str) -> None:
    try:
        storage.delete(uri)
    except StorageError as error:
        log.warning("the lease could not be removed: %s", error)


def is_held(lasts_s: float) -> bool:
    """Return whether the lease that the environment names is renewed; without one, so it is.

    Waits for a change: what lies there may have been left by somebody who is gone.

    Args:
        lasts_s: How long one renewal holds, in seconds, and so how long to wait.

    Raises:
        StorageError: If it cannot be read.
    """
    uri = os.environ.get(LEASE_URI)
    if not uri:
        return True
    lasts_s = min(lasts_s, _LONGEST_WAIT_S)
    first, end = _read(uri), time.monotonic() + lasts_s
    while time.monotonic() < end:
        time.sleep(min(lasts_s / _SIGNS, _RENEW_S / 3))
        content = _read(uri)
        if content and content != first:
            return True
    log.warning("%s has not changed for %.0f s: nobody waits for this training", uri, lasts_s)
    return False


def _read(uri: str) -> bytes:
    return storage.read_bytes(uri) if storage.exists(uri) else b""


@contextmanager
def watched(lasts_s: float, on_stale: Callable[[], None]) -> Iterator[None]:
    """Look at the lease in the block, from a thread, if the environment names one.

    Args:
        lasts_s: How long one renewal holds, in seconds; the first time counts from now.
        on_stale: Called, once, when there was no renewal for so long.
    """
    uri = os.environ.get(LEASE_URI)
    if not uri:
        yield
        return
    is_over = threading.Event()
    threading.Thread(
        target=_watch, args=(uri, lasts_s, on_stale, is_over), name="lease", daemon=True
    ).start()
    try:
        yield
    finally:
        is_over.set()


def _watch(
    uri: str, lasts_s: float, on_stale: Callable[[], None], is_over: threading.Event
) -> None:
    seen, since = b"", time.monotonic()
    while not is_over.wait(min(lasts_s / _SIGNS, _LOOK_S)):
        try:
            content = _read(uri)
        except StorageError as error:
            log.warning("the lease could not be read: %s", error)
            since = time.monotonic()  # a store that nobody can reach says nothing about the step
            continue
        if content and content != seen:
            seen, since = content, time.monotonic()
        elif time.monotonic() - since > lasts_s:
            log.warning("%s has not changed for %.0f s", uri, lasts_s)
            on_stale()
            return
