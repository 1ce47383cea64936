"""SIGTERM: end the job if the whole run is to end, leave it to be adopted if only this pod is.

After a SIGTERM the pod of a pipeline's step lives for about 0.9 s. Argo makes a pod that was
drained anew, and KFP's Terminate sends the same signal: only the Workflow tells the two apart.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from plsc.cluster.api import Api
from plsc.cluster.job_request import JobRequest
from plsc.cluster.place import Place
from plsc.errors import ClusterError

__all__ = ["Interrupted", "Standby", "ended_by_sigterm"]

log = logging.getLogger(__name__)

_TIMEOUT_S = 0.4
_KEEP_READY_S = 20.0


class Interrupted(SystemExit):
    """SIGTERM came; the exit code is 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Standby:
    """A connection of its own to the API, in use often enough to stay open, for the last second."""

    def __init__(self, api: Api, place: Place, request: JobRequest) -> None:
        self._api = api
        self._place = place
        self._request = request
        self._used: float | None = None
        self._has_told = False
        self.has_signal = False

    def keep_ready(self) -> None:
        """Ask for the Workflow now and then: the connection stays open, its right is known.

        Raises:
            Interrupted: If a signal came where Python could not raise (in a finalizer).
        """
        if self.has_signal:
            raise Interrupted
        now = time.monotonic()
        if self._used is not None and now - self._used < _KEEP_READY_S:
            return
        self._used = now
        try:
            self._place.is_being_terminated(self._api, timeout_s=5.0)
        except ClusterError as error:
            if not self._has_told:
                log.warning("terminating this run may leave its job behind: %s", error)
            self._has_told = True

    def end_job_if_run_ends(self) -> None:
        """Delete the job if the run is being terminated; two requests without another try."""
        kind, name = self._request.kind, self._request.name
        try:
            if self._place.is_being_terminated(self._api, timeout_s=_TIMEOUT_S):
                self._api.delete(kind, name, timeout_s=_TIMEOUT_S)
                log.warning("the run is being terminated: deleted %s", self._request.title)
            else:
                log.warning("SIGTERM: %s goes on, for the next try to adopt", self._request.title)
        except ClusterError as error:
            log.warning("SIGTERM: %s is left as it is: %s", self._request.title, error)


@contextmanager
def ended_by_sigterm(api: Api, place: Place, request: JobRequest) -> Iterator[Standby]:
    """Within the block a SIGTERM raises ``Interrupted``, after the job was seen to.

    Only the main thread can have that; in another one the block is run as it is.
    """
    with api.twin(patience_s=0.0) as twin:
        standby = Standby(twin, place, request)
        if threading.current_thread() is not threading.main_thread():
            yield standby
            return

        def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
            # Nothing more here: the thread may hold the lock of a pool of connections.
            standby.has_signal = True
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise Interrupted

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield standby
        except Interrupted:
            standby.end_job_if_run_ends()
            raise
        finally:
            if not standby.has_signal:
                signal.signal(signal.SIGTERM, before)
