"""Reading a pod: what keeps it from running, and how its containers ended."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plsc.cluster.job_state import condition
from plsc.conf.schema import PodsConfig

__all__ = ["Ending", "Obstacle", "endings", "has_run", "identity", "obstacles", "was_evicted"]

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_START = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_FOR_GOOD = {"InvalidImageName", "ErrImageNeverPull"}
_MOUNT = {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"}
_REPLICA = (
    "batch.kubernetes.io/job-completion-index",
    "training.kubeflow.org/replica-type",
    "training.kubeflow.org/replica-index",
)


@dataclass(frozen=True)
class Obstacle:
    """Why a pod does not run yet, although nothing of it has failed.

    Attributes:
        pod: Its name.
        category: ``node`` (none fits), ``image`` or ``start``.
        reason: Kubernetes' word: ``ImagePullBackOff``.
        message: Kubernetes' sentence.
        container: Which; empty: the whole pod.
        image: The container's image.
    """

    pod: str
    category: str
    reason: str
    message: str
    container: str = ""
    image: str = ""

    def limit_s(self, pods: PodsConfig) -> float:
        """Return how long it may last, in seconds; 0: it never goes away."""
        if self.reason in _FOR_GOOD:
            return 0.0
        return pods.schedule_timeout_s if self.category == "node" else pods.image_timeout_s

    def __str__(self) -> str:
        image = f" (image {self.image})" if self.category == "image" else ""
        said = f": {self.message}" if self.message else ""
        return f"{self.reason}{image}{said}"


@dataclass(frozen=True)
class Ending:
    """How a container ended, with success or without.

    Attributes:
        pod: Name of its pod.
        uid: Of its pod.
        container: Its name.
        reason: Kubernetes' word: ``OOMKilled``, ``Error``, ``Completed``.
        exit_code: 0: success.
        message: What it left behind, or why it could not be started.
        finished_at: RFC 3339; sorts as time does.
        is_of_former: It has been started again since.
        index: Of an Indexed Job's pod; empty for others.
        is_disrupted: The pod was evicted, or its node drained: not the container's fault.
        memory: Its limit, as a quantity; empty: none.
    """

    pod: str
    uid: str
    container: str
    reason: str
    exit_code: int
    message: str = ""
    finished_at: str = ""
    is_of_former: bool = False
    index: str = ""
    is_disrupted: bool = False
    memory: str = ""

    @property
    def was_out_of_memory(self) -> bool:
        """Whether the kernel ended it for its memory."""
        return self.reason == "OOMKilled" and self.exit_code != 0

    def __str__(self) -> str:
        index = f" (index {self.index})" if self.index else ""
        which = f"{self.pod}{index}, container {self.container}"
        if self.was_out_of_memory:
            limit = f", limit {self.memory}" if self.memory else ""
            return f"{which}: OOMKilled (exit code {self.exit_code}{limit})"
        said = f": {self.message.strip()}" if self.message.strip() else ""
        reason = "" if self.reason in {"", "Error"} else f"{self.reason}, "
        return f"{which}: {reason}exit code {self.exit_code}{said}"


def identity(pod: Mapping[str, Any]) -> str:
    """Return whose place the pod has in its job: the same for the pod that is made in its stead."""
    labels = pod["metadata"].get("labels") or {}
    known = [str(labels[key]) for key in _REPLICA if key in labels]
    return "-".join(known) if known else str(pod["metadata"]["name"])


def was_evicted(pod: Mapping[str, Any]) -> bool:
    """Return whether the cluster took the pod away: eviction, preemption, a drained node."""
    status = pod.get("status") or {}
    return status.get("reason") in {"Evicted", "Preempting", "NodeShutdown", "Terminated"} or (
        condition(pod, "DisruptionTarget") is not None
    )


def has_run(pod: Mapping[str, Any], container: str) -> bool:
    """Return whether a container of the pod has been started, ever."""
    return any(
        "running" in one.get("state", {}) or one.get("restartCount") or _ended_in(one, "state")
        for one in _statuses(pod)
        if one["name"] == container
    )


def obstacles(
    pod: Mapping[str, Any], events: Iterable[Mapping[str, Any]] = ()
) -> Iterator[Obstacle]:
    """Yield what keeps a pod from running.

    Args:
        pod: As the API gives it.
        events: Those of the pod: a volume that cannot be had is told nowhere else.
    """
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if status.get("phase") != "Pending":
        pending: list[Mapping[str, Any]] = []
    else:
        pending = [one for one in status.get("conditions") or [] if one["type"] == "PodScheduled"]
    for one in pending:
        if one.get("status") == "False" and one.get("reason") == "Unschedulable":
            yield Obstacle(name, "node", "Unschedulable", one.get("message") or "")
    is_creating = False
    for container in _statuses(pod):
        waiting = container.get("state", {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message") or ""
        is_creating |= reason in {"ContainerCreating", "PodInitializing"}
        if reason in _IMAGE | _START:
            category = "image" if reason in _IMAGE else "start"
            image = container.get("image", "")
            yield Obstacle(name, category, reason, message, container["name"], image)
    last = max(events, key=_event_time, default=None)
    if is_creating and last is not None and last.get("reason") in _MOUNT:
        yield Obstacle(name, "start", last["reason"], last.get("message") or "")


def endings(pod: Mapping[str, Any]) -> list[Ending]:
    """Return how the pod's containers ended, former ones of restarted containers included."""
    found = []
    limits = {
        one["name"]: ((one.get("resources") or {}).get("limits") or {}).get("memory", "")
        for one in (pod.get("spec") or {}).get("containers", [])
    }
    for container in _statuses(pod):
        for where in ("lastState", "state"):
            ended = _ended_in(container, where)
            if ended:
                found.append(
                    Ending(
                        pod=pod["metadata"]["name"],
                        uid=pod["metadata"].get("uid", ""),
                        container=container["name"],
                        reason=ended.get("reason") or "",
                        exit_code=int(ended.get("exitCode", 0)),
                        message=ended.get("message") or "",
                        finished_at=ended.get("finishedAt") or "",
                        is_of_former=where == "lastState",
                        index=(pod["metadata"].get("labels") or {}).get(_REPLICA[0], ""),
                        is_disrupted=was_evicted(pod),
                        memory=limits.get(container["name"], ""),
                    )
                )
    return found


def _statuses(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    status = pod.get("status") or {}
    return [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]


def _ended_in(container: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (container.get(where) or {}).get("terminated")
    return found


def _event_time(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
