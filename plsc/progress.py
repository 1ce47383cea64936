"""Progress of long work as log lines: how much is done, how fast, and how long it still takes."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["ByteProgress", "Progress", "duration", "track"]

_T = TypeVar("_T")


def duration(seconds: float) -> str:
    """Return seconds as a person writes them: ``7.3 s``, ``2 min 05 s``, ``3 h 20 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Counts work and logs a line at most every ``interval_s`` seconds.

    Lines, not a redrawn bar: they read the same in a terminal, in KFP's log view and in a file.
    """

    def __init__(
        self, log: logging.Logger, what: str, total: int, *, unit: str, interval_s: float = 5.0
    ) -> None:
        self._log = log
        self._what = what
        self._total = total
        self._unit = unit
        self._interval_s = interval_s
        self._done = 0
        self._start = self._last = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Say that ``count`` more are done."""
        self._done += count
        now = time.monotonic()
        if now - self._last >= self._interval_s and 0 < self._done < self._total:
            self._last = now
            left = (self._total - self._done) / self.rate
            self._log.info(
                "%s: %d of %d %s, %.0f/s, %s left",
                self._what, self._done, self._total, self._unit, self.rate, duration(left),
            )  # fmt: skip

    @property
    def rate(self) -> float:
        """Units per second since the beginning."""
        return self._done / max(time.monotonic() - self._start, 1e-9)

    def finish(self) -> None:
        """Log the closing line."""
        seconds = time.monotonic() - self._start
        self._log.info(
            "%s: %d %s in %s (%.0f/s)",
            self._what,
            self._done,
            self._unit,
            duration(seconds),
            self.rate,
        )


class ByteProgress:
    """Progress of work that is counted in bytes and told in MiB; threads may share it."""

    def __init__(self, log: logging.Logger, what: str, total_bytes: int) -> None:
        self._progress = Progress(log, what, total_bytes >> 20, unit="MiB")
        self._bytes = 0
        self._lock = threading.Lock()

    def advance(self, num_bytes: int) -> None:
        """Say that ``num_bytes`` more are done."""
        with self._lock:
            before, self._bytes = self._bytes >> 20, self._bytes + num_bytes
            self._progress.advance((self._bytes >> 20) - before)

    def finish(self) -> None:
        """Log the closing line."""
        self._progress.finish()


def track(
    log: logging.Logger, what: str, items: Iterable[_T], *, total: int, unit: str
) -> Iterator[_T]:
    """Yield ``items`` while logging progress."""
    progress = Progress(log, what, total, unit=unit)
    for item in items:
        yield item
        progress.advance()
    progress.finish()
