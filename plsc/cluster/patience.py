"""Trying again while the API server is away or busy, with growing pauses, told once."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from plsc.cluster.refusals import AwayError, ForbiddenError
from plsc.errors import ClusterError

__all__ = ["Patience"]

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 15.0
_BLIP_S = 1.0
_AGAIN_S = 300.0
_DOUBT_S = 60.0
_T = TypeVar("_T")


class Patience:
    """Counts how long the server has been away, pauses, and says so once.

    Args:
        limit_s: Longest time away before the error is raised, in seconds.
        stop: When set, pauses end at once, and so does the patience.
        was_served: The server has answered this account before.
        is_quiet: Somebody else says that it is away.
    """

    def __init__(
        self,
        limit_s: float,
        stop: threading.Event | None = None,
        *,
        was_served: bool = False,
        is_quiet: bool = False,
    ) -> None:
        self._limit_s = limit_s
        self._is_quiet = is_quiet
        self._stop = stop or threading.Event()
        self._since: float | None = None
        self._told: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._was_served = was_served

    def served(self) -> None:
        """Note that the server answered as it should."""
        if self._told is not None:
            log.info("the Kubernetes API answers again")
        self._since = self._told = None
        self._pause_s = _FIRST_PAUSE_S
        self._was_served = True

    def endure(self, error: ClusterError) -> None:
        """Wait before another try, or raise ``error`` when it cannot help any more."""
        pause_s = self.pause_after(error)
        if self._stop.is_set():
            raise error
        self._stop.wait(pause_s)

    def pause_after(self, error: ClusterError) -> float:
        """Return how long to wait before another try, in seconds, or raise ``error``.

        A server that has just been started may refuse whom it served before, until it has read the
        roles again; so a refusal after an answer is doubted for a minute.
        """
        limit_s = self._limit_s if isinstance(error, AwayError) else 0.0
        if isinstance(error, ForbiddenError) and self._was_served:
            limit_s = min(_DOUBT_S, self._limit_s)
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        asked_s = error.retry_after_s if isinstance(error, AwayError) else 0.0
        pause_s = max(asked_s, self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311
        if now - self._since + pause_s > limit_s:
            raise error
        long = now - self._since >= _BLIP_S if self._told is None else now - self._told > _AGAIN_S
        if long and not self._is_quiet:
            log.warning("trying again for a while: %s", error)
            self._told = now
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause_s

    def persist(self, call: Callable[[], _T]) -> _T:
        """Return what ``call`` returns, called until the server serves it.

        Raises:
            ClusterError: Its refusal, or that it was away for too long.
        """
        while True:
            try:
                found = call()
            except ClusterError as error:
                self.endure(error)
            else:
                self.served()
                return found
