"""One line about how the pods of a job stand, told when it changes and not too often."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plsc.cluster.diagnosis import Obstacle, endings, identity, was_evicted

__all__ = ["LiveState", "describe"]

log = logging.getLogger(__name__)

_PAUSE_S = 30.0
_NAMED = 3


class LiveState:
    """Remembers what was told last."""

    def __init__(self) -> None:
        self._told: tuple[str, str] = ("", "")
        self._due = 0.0

    def tell(self, head: str, details: str) -> None:
        """Log a state: at once when ``head`` changed, details at most every 30 s."""
        now = time.monotonic()
        is_new = head != self._told[0] or (details != self._told[1] and now >= self._due)
        if not is_new:
            return
        self._told = (head, details)
        self._due = now + _PAUSE_S if details else self._due
        log.info("%s", f"{head}; {details}" if details else head)


def describe(
    pods: Sequence[Mapping[str, Any]],
    obstacles: Iterable[Obstacle],
    *,
    num_pods: int,
    is_suspended: bool = False,
    note: str = "",
) -> tuple[str, str]:
    """Return how the pods stand: how many run, and what is to be said about the others.

    Args:
        pods: As the API gives them.
        obstacles: What keeps some of them from running.
        num_pods: How many there should be.
        is_suspended: The job waits in a queue.
        note: What else is known, where there are too few pods.
    """
    phases = [(pod.get("status") or {}).get("phase", "") for pod in pods]
    running, done = phases.count("Running"), phases.count("Succeeded")
    has_all = running + done >= num_pods
    said = f"{running} of {num_pods} pods run" + (f", {done} done" if done else "")
    if is_suspended:
        said = "the job is suspended: it waits in its queue"
    head = said if has_all else f"waiting: {said}"
    details = [f"{one.pod}: {one}" for one in obstacles]
    details += [_trouble(pod) for pod in _newest(pods)]
    details += [note] if note and not has_all else []
    told = [one for one in details if one]
    more = f"; and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return head, "; ".join(told[:_NAMED]) + more


def _newest(pods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return one pod for every place in the job: the last that was made for it."""
    in_order = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
    return list({identity(pod): pod for pod in in_order}.values())


def _trouble(pod: Mapping[str, Any]) -> str:
    """Return how often a pod's containers were started again and why; empty: never."""
    status = pod.get("status") or {}
    name = pod["metadata"]["name"]
    if was_evicted(pod):
        return f"{name}: taken away by the cluster: {status.get('message') or 'disruption'}"
    restarts = sum(one.get("restartCount", 0) for one in status.get("containerStatuses") or [])
    failed = [one for one in endings(pod) if one.exit_code]
    if not failed or (status.get("phase") == "Running" and not restarts):
        return ""
    return f"{failed[-1]}" + (f" ({restarts} restarts)" if restarts else "")
