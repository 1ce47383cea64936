"""Interruption: SIGTERM is heard, so that what was begun is taken back as far as time allows."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["heard"]


@contextmanager
def heard() -> Iterator[None]:
    """Within the block SIGTERM raises SystemExit, once; the next ones are not heard.

    Python's default is to end on the spot, in the middle of a switch. When a run is terminated on a
    cluster 0.9 s are left, which is enough for the repository, and for the first servers. In
    another thread than the main one, which alone may handle signals, nothing changes.

    Raises:
        SystemExit: With 143, as a shell says it of a process that SIGTERM ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(143)
