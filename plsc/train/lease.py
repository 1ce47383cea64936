"""The lease of a training on a cluster: ranks do not train on when whoever started them is gone.

The step that waits for the ranks writes a small object, anew and different, every fifth of
``train.lease_s``. Rank 0 looks at it as often. When it has been the same for ``train.lease_s`` by
rank 0's own clock, nobody waits for the ranks any more, and they stop. The clocks of the two
machines are never compared.
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

__all__ = ["LEASE_URI", "kept", "lease_uri", "watched"]

log = logging.getLogger(__name__)

LEASE_URI = "PLSC_LEASE_URI"
"""Environment variable of the ranks: the lease to look at. Without it there is none."""

_SIGNS = 5
"""Signs of life within the time that a lease lasts: so many may get lost, less one."""


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
    thread = threading.Thread(
        target=_renew, args=(uri, lasts_s / _SIGNS, is_over), name="lease", daemon=True
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
            thread.join(lasts_s / _SIGNS)
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
    while not is_over.wait(lasts_s / _SIGNS):
        try:
            content = storage.read_bytes(uri) if storage.exists(uri) else b""
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
