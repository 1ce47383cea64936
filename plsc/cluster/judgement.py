"""When to give up a job that has not failed by itself: it cannot start, or will not do better."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plsc.cluster.diagnosis import Ending, Obstacle, endings, identity
from plsc.cluster.job_request import JobRequest
from plsc.cluster.job_state import JobState
from plsc.cluster.kinds import JOB

__all__ = ["Judge", "memory_advice"]

_OUT_OF_MEMORY = 2  # times: once may be an accident of its neighbors


class Judge:
    """Measures how long obstacles last, by the clock of this process."""

    def __init__(self, request: JobRequest) -> None:
        self._request = request
        self._since: dict[tuple[str, ...], float] = {}
        self._seen: set[str] = set()
        self._done: set[str] = set()
        self._out_of_memory: dict[str, set[str]] = {}

    def missing(self, pods: Iterable[Mapping[str, Any]], state: JobState) -> int:
        """Return how many of the job's pods have not been made at all, so far."""
        self._seen |= {identity(pod) for pod in pods} | state.completed
        return max(0, self._request.num_pods - len(self._seen))

    def verdict(
        self,
        pods: Sequence[Mapping[str, Any]],
        obstacles: Iterable[Obstacle],
        *,
        state: JobState,
        note: str = "",
    ) -> str:
        """Return why to give the job up; empty: there is hope.

        Args:
            pods: Of the job, as the API gives them.
            obstacles: What keeps some of them from running.
            state: That of the job. If it is suspended, it waits in a queue, as long as it takes.
            note: What the cluster noted about the job.
        """
        now = time.monotonic()
        lasting: dict[tuple[str, ...], float] = {}
        reasons = [self._out_of_memory_again(one) for pod in pods for one in endings(pod)]
        gets_on = self._gets_on(pods, state)
        for one in obstacles:
            if gets_on and one.category == "node":
                continue
            key = (one.pod, one.category, one.container)
            lasting[key] = self._since.get(key, now)
            if now - lasting[key] >= one.limit_s(self._request.pods):
                reasons.append(self._told(one))
        missing = self.missing(pods, state)
        if missing and not (state.is_suspended or gets_on):
            key = ("", "missing", "")
            lasting[key] = self._since.get(key, now)
            if now - lasting[key] >= self._request.pods.schedule_timeout_s:
                reasons.append(self._told_missing(missing, note))
        self._since = lasting
        return next((reason for reason in reasons if reason), "")

    def _gets_on(self, pods: Iterable[Mapping[str, Any]], state: JobState) -> bool:
        """Return whether an Indexed Job gets on with fewer pods at once than it asks for.

        Its pods do not need each other: those without a node wait for the place of those that run.
        """
        phases = {(identity(pod), (pod.get("status") or {}).get("phase")) for pod in pods}
        done = state.completed | {one for one, phase in phases if phase == "Succeeded"}
        has_more = not done <= self._done
        self._done |= done
        is_running = any(phase == "Running" for _, phase in phases)
        return self._request.kind == JOB and (has_more or is_running)

    def _told(self, obstacle: Obstacle) -> str:
        step, pods = self._request.step, self._request.pods
        which = f"pod {obstacle.pod}"
        if obstacle.category == "node":
            return (
                f"{which} found no node for {pods.schedule_timeout_s:g} s "
                f"({step}.pods.schedule_timeout_s): {obstacle}; ask for less ({step}.pods.cpu, "
                f"memory, gpus, node_selector), tolerate more ({step}.pods.tolerations), or wait "
                "longer"
            )
        limit_s = obstacle.limit_s(pods)
        setting = f" ({step}.pods.image_timeout_s)" if limit_s else ""
        lasted = f" for {limit_s:g} s{setting}" if limit_s else ""
        if obstacle.category == "image":
            return (
                f"{which} could not get its image{lasted}: {obstacle}; check {step}.pods.image, "
                "which the compiled pipeline gives in PLSC_WORKER_IMAGE, and that the nodes may "
                "pull it"
            )
        return f"{which} could not start{lasted}: {obstacle}"

    def _told_missing(self, missing: int, note: str) -> str:
        noted = f"; the cluster noted: {note}" if note else ""
        return (
            f"{missing} of {self._request.num_pods} pods were not made within "
            f"{self._request.pods.schedule_timeout_s:g} s "
            f"({self._request.step}.pods.schedule_timeout_s){noted}; look at the controller that "
            "should make them (for a PyTorchJob the training operator), and at quotas"
        )

    def _out_of_memory_again(self, ending: Ending) -> str:
        if not ending.was_out_of_memory:
            return ""
        place = f"{ending.index or ending.pod}/{ending.container}"
        times = self._out_of_memory.setdefault(place, set())
        times.add(f"{ending.uid} {ending.finished_at}")
        if len(times) < _OUT_OF_MEMORY:
            return ""
        return f"{ending}, {len(times)} times; {memory_advice(self._request, ending)}"


def memory_advice(request: JobRequest, ending: Ending) -> str:
    """Return what to do about a container that ran out of memory."""
    now = f" (now {ending.memory})" if ending.memory else ""
    return f"give its pods more memory: {request.step}.pods.memory{now}"
