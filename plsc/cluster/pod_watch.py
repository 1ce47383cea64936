"""A look at the pods of a job now and then: how they stand, and whether there is hope."""

import time
from typing import Any

from plsc.cluster.api import Api
from plsc.cluster.diagnosis import Obstacle, has_run, obstacles
from plsc.cluster.events import Events
from plsc.cluster.job_request import JobRequest
from plsc.cluster.job_state import JobState
from plsc.cluster.judgement import Judge
from plsc.cluster.kinds import POD
from plsc.cluster.live_state import LiveState, describe
from plsc.cluster.patience import Patience
from plsc.errors import ClusterError

__all__ = ["PodWatch", "pods_of"]

_WAITING_S = 2.0
_RUNNING_S = 5.0
_ASKED_ABOUT = 3  # pods whose events are read at one look


def pods_of(api: Api, request: JobRequest, uid: str) -> list[dict[str, Any]]:
    """Return the pods that the job with this uid has made.

    Raises:
        ClusterError: If the cluster refuses, or is away for too long.
    """

    def is_its(pod: dict[str, Any]) -> bool:
        return uid in {one["uid"] for one in pod["metadata"].get("ownerReferences") or []}

    return [pod for pod in api.list(POD, labels=request.pod_labels) if is_its(pod)]


class PodWatch:
    """Looks at the pods of one job; best with an ``Api`` that does not wait: it looks again.

    Attributes:
        pods: As the API gave them last.
        state: That of the job; to be kept up to date by the owner.
        has_started: A pod's own container has run, at least once.
    """

    def __init__(self, api: Api, request: JobRequest, uid: str) -> None:
        self._api = api
        self._request = request
        self._uid = uid
        self._events = Events(api)
        self._judge = Judge(request)
        self._told = LiveState()
        self._due = 0.0
        self._patience = Patience(float("inf"), is_quiet=True)  # who watches the job says it
        self.pods: list[dict[str, Any]] = []
        self.state = JobState()
        self.has_started = False

    @property
    def is_due(self) -> bool:
        """Whether it is time for a look."""
        return time.monotonic() >= self._due

    def look(self) -> str:
        """Look, tell what has changed, and return why to give the job up; empty: there is hope.

        Raises:
            ClusterError: If the cluster refuses.
        """
        self._due = time.monotonic() + _WAITING_S
        try:
            self.pods = pods_of(self._api, self._request, self._uid)
        except ClusterError as error:
            self._due = time.monotonic() + self._patience.pause_after(error)
            return ""
        self._patience.served()
        container = self._request.container
        self.has_started |= any(has_run(pod, container) for pod in self.pods)
        found = self._obstacles()
        note = ""
        if self._judge.missing(self.pods, self.state):
            note = self._events.last_warning(self._request.name)
        num_pods = self._request.num_pods
        told = describe(
            self.pods, found, num_pods=num_pods, is_suspended=self.state.is_suspended, note=note
        )
        self._told.tell(*told)
        if not told[0].startswith("waiting"):
            self._due = time.monotonic() + _RUNNING_S
        return self._judge.verdict(self.pods, found, state=self.state, note=note)

    def _obstacles(self) -> list[Obstacle]:
        waiting = [
            pod for pod in self.pods if (pod.get("status") or {}).get("phase", "") == "Pending"
        ]
        asked = {pod["metadata"]["name"] for pod in waiting[:_ASKED_ABOUT]}
        found: list[Obstacle] = []
        for pod in self.pods:
            name = pod["metadata"]["name"]
            found += obstacles(pod, self._events.of(name) if name in asked else ())
        return found
