"""Two threads that listen to a job, its state and its speaker, and one queue of what they hear."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from plsc.cluster.api import Api
from plsc.cluster.job_request import JobRequest
from plsc.cluster.job_state import JobState
from plsc.cluster.log_following import LogFollower
from plsc.errors import ClusterError

__all__ = ["Following", "Heard"]

log = logging.getLogger(__name__)

_BACKLOG = 10_000  # lines; a speaker that says more waits
_ADOPTED_TAIL = 200  # lines of what was said before a job was adopted
_LAST_WORDS_S = 15.0

Heard = str | JobState | ClusterError | None
"""A line; a state of the job; why it cannot be followed; None: the job is gone."""


class Following:
    """Listens within a ``with`` block.

    Args:
        api: Not used itself; its twins are.
        request: The job.
        job: As the API gives it.
        is_adopted: What its speaker said before is known: only the end of it is told.
    """

    def __init__(
        self, api: Api, request: JobRequest, job: Mapping[str, Any], *, is_adopted: bool
    ) -> None:
        self._api = api.twin(patience_s=0.0)  # both threads have a patience of their own
        self._request = request
        self._uid = job["metadata"]["uid"]
        self._heard: queue.Queue[Heard] = queue.Queue(_BACKLOG)
        self._watcher = threading.Thread(
            target=self._watch_guarded, name="job-watcher", daemon=True
        )
        self._follower = LogFollower(
            self._api,
            {**request.pod_labels, **request.speaker},
            uid=self._uid,
            container=request.container,
            tail=_ADOPTED_TAIL if is_adopted else None,
            on_line=self._put,
        )
        self._speaker = threading.Thread(
            target=self._follow_guarded, name="log-follower", daemon=True
        )

    def __enter__(self) -> Self:
        self._watcher.start()
        if self._request.speaker:
            self._speaker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._api.close()
        self._follower.finish()
        if kind is None or issubclass(kind, Exception):  # a signal leaves no time
            for thread in (self._watcher, self._speaker):
                if thread.ident is not None:
                    thread.join(5.0)

    def next(self, timeout_s: float) -> Heard | bool:
        """Return what is heard next; False if that is nothing within ``timeout_s`` seconds."""
        try:
            return self._heard.get(timeout=timeout_s)
        except queue.Empty:
            return False

    def last_words(self, on_line: Callable[[str], None]) -> None:
        """Pass on what the speaker of an ended job has said yet, for some seconds at most."""
        if not self._request.speaker:
            return
        self._follower.finish()
        end = time.monotonic() + _LAST_WORDS_S
        while time.monotonic() < end:
            is_over = not self._speaker.is_alive()
            heard = self.next(0.0 if is_over else 0.1)
            if isinstance(heard, str):
                on_line(heard)
            elif heard is False and is_over:
                return

    def _watch_guarded(self) -> None:
        try:
            self._watch()
        except ClusterError as error:
            self._put(error)
        except Exception as error:  # noqa: BLE001  a silent end would be waited for without end
            failure = ClusterError(
                f"{self._request.title} cannot be followed: {type(error).__name__}: {error}; it "
                "goes on: run the step again, which adopts it"
            )
            failure.__cause__ = error
            self._put(failure)

    def _follow_guarded(self) -> None:
        try:
            self._follower.follow()
        except Exception as error:  # a log is only shown: the job needs none
            if not self._api.is_closed:
                is_bug = not isinstance(error, ClusterError)
                title = self._request.title
                log.warning("going on without the log of %s: %s", title, error, exc_info=is_bug)

    def _watch(self) -> None:
        for job in self._api.watch(self._request.kind, self._request.name):
            is_ours = job is not None and job["metadata"]["uid"] == self._uid
            self._put(JobState.of(job) if job is not None and is_ours else None)

    def _put(self, heard: Heard) -> None:
        while not self._api.is_closed:
            try:
                self._heard.put(heard, timeout=1.0)
            except queue.Full:
                continue
            return
