"""The pods of a stage's own job on a cluster: how many, of what size, and how patient to be."""

import re
from dataclasses import dataclass, field

__all__ = ["PodsConfig", "pods_problems"]

_QUANTITY = r"\d+(\.\d+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?"
_LABEL = r"[A-Za-z0-9./_-]+=[A-Za-z0-9._-]*"
_TAINT = r"[A-Za-z0-9./_-]+(=[A-Za-z0-9._-]*)?(:(NoSchedule|PreferNoSchedule|NoExecute))?"


@dataclass
class PodsConfig:
    """Settings that are empty come from the pipeline's task, where it has them.

    Sizes are Kubernetes quantities: ``500m``, ``2``; ``512Mi``, ``16Gi``.
    """

    count: int = 0
    """Pods. 0 (not for train): no job, the step's own pod does the work."""
    image: str = "${oc.env:PLSC_WORKER_IMAGE,''}"
    """Their image. The compiled pipeline sets the variable, with the registry and tag in use."""
    cpu: str = ""
    """Processors that each asks for."""
    memory: str = ""
    """Memory that each asks for and may not exceed."""
    gpus: int = 0
    """GPUs of each (``nvidia.com/gpu``)."""
    shm: str = "2Gi"
    """Shared memory of each (``/dev/shm``); it counts as memory."""
    node_selector: list[str] = field(default_factory=list)
    """Labels that a node must have, as kubectl writes them: ``key=value``."""
    tolerations: list[str] = field(default_factory=list)
    """Taints that are tolerated, as kubectl writes them: ``key``, ``key:NoSchedule``,
    ``key=value:NoExecute``."""
    priority_class: str = ""
    """Priority class of the pods."""
    queue: str = ""
    """Kueue's LocalQueue that the job waits in."""
    max_restarts: int = 3
    """Times that each pod may fail and be started again before the job is given up."""
    schedule_timeout_s: float = 600.0
    """Longest time for which a pod may find no node."""
    image_timeout_s: float = 300.0
    """Longest time for which a pod may fail to get its image, or to start for another reason."""
    deadline_s: int = 604800
    """Longest time that the whole job may take."""
    grace_s: int = 120
    """Time between the signal to end and the end: what train has to write a checkpoint."""
    keep_s: int = 86400
    """How long an ended job, and the logs of its pods, stay, if its Workflow stays as long (KFP
    2.17.0 removes one an hour after its end). A PyTorchJob that failed goes at once: what its pods
    went through lies in the store."""


def pods_problems(key: str, pods: PodsConfig) -> list[str]:
    """Return what is wrong with ``pods``, the setting ``key``, one line each."""
    problems = [
        f"{key}.{name} must be a Kubernetes quantity such as 500m or 16Gi, not {value!r}"
        for name, value in {"cpu": pods.cpu, "memory": pods.memory, "shm": pods.shm}.items()
        if value and not re.fullmatch(_QUANTITY, value)
    ]
    problems += [
        f"{key}.tolerations must hold taints such as key=value:NoSchedule, not {taint!r}"
        for taint in pods.tolerations
        if not re.fullmatch(_TAINT, taint)
    ]
    problems += [
        f"{key}.node_selector must hold labels such as key=value, not {label!r}"
        for label in pods.node_selector
        if not re.fullmatch(_LABEL, label)
    ]
    found = {
        "count": pods.count, "gpus": pods.gpus, "max_restarts": pods.max_restarts,
        "grace_s": pods.grace_s, "keep_s": pods.keep_s,
    }  # fmt: skip
    problems += [
        f"{key}.{name} must not be negative, is {value}"
        for name, value in found.items()
        if value < 0
    ]
    positive = {
        "schedule_timeout_s": pods.schedule_timeout_s, "image_timeout_s": pods.image_timeout_s,
        "deadline_s": pods.deadline_s,
    }  # fmt: skip
    problems += [
        f"{key}.{name} must be greater than 0, not {value}"
        for name, value in positive.items()
        if not value > 0
    ]
    return problems
