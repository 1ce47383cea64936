"""The pods of a job: the template's, with what KFP's task and the configuration ask of them.

What the configuration says wins over the task, and the task over the template.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from plsc.conf.schema import PodsConfig

__all__ = ["pod_settings", "toleration", "whole_processors"]

_GPU = "nvidia.com/gpu"
_SHM_PATH = "/dev/shm"  # noqa: S108  not a file of ours
_TASK_NAMES = {"node_selector": "nodeSelector", "volume_mounts": "volumeMounts"}


def pod_settings(
    template: Mapping[str, Any], pods: PodsConfig, task: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return a pod's spec.

    Args:
        template: The spec of the template's pod; its first container does the work. Not changed.
        pods: The configuration; what is empty in it leaves the others as they are.
        task: KFP's ``dsl.TaskConfig`` as a dictionary: ``resources``, ``env``, ``tolerations``,
            ``nodeSelector``, ``affinity``, ``volumes``, ``volumeMounts`` (or the names of the
            dataclass); any of them may be missing, None or empty.
    """
    spec = copy.deepcopy(dict(template))
    asked = {_TASK_NAMES.get(key, key): value for key, value in (task or {}).items() if value}
    container = spec["containers"][0]
    resources = _resources(container.get("resources") or {}, asked.get("resources") or {}, pods)
    if resources:
        container["resources"] = resources
    if pods.image:
        container["image"] = pods.image
    _extend(container, "env", asked.get("env", []))
    _extend(container, "volumeMounts", asked.get("volumeMounts", []), key="mountPath")
    _extend(spec, "volumes", asked.get("volumes", []))
    tolerations = [toleration(one) for one in pods.tolerations] or asked.get("tolerations", [])
    if tolerations:
        spec["tolerations"] = [*spec.get("tolerations", []), *copy.deepcopy(tolerations)]
    labels = dict(label.split("=", 1) for label in pods.node_selector)
    selector = labels or asked.get("nodeSelector", {})
    if selector:
        spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **selector}
    if "affinity" in asked:
        spec["affinity"] = copy.deepcopy(asked["affinity"])
    if pods.priority_class:
        spec["priorityClassName"] = pods.priority_class
    spec["terminationGracePeriodSeconds"] = pods.grace_s
    _set_shm(spec, container, pods.shm)
    return spec


def toleration(taint: str) -> dict[str, str]:
    """Return the toleration of a taint as kubectl writes it: ``key``, ``key=value:NoSchedule``."""
    left, _, effect = taint.partition(":")
    key, equals, value = left.partition("=")
    found = {"key": key, "operator": "Equal", "value": value} if equals else {}
    found = found or {"key": key, "operator": "Exists"}
    return found | ({"effect": effect} if effect else {})


def whole_processors(cpu: str) -> int:
    """Return how many whole processors a quantity of Kubernetes is (``2500m``: 2), at least 1."""
    asked = float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu.rstrip("kMGTPi"))
    return max(1, int(asked))


def _resources(
    template: Mapping[str, Any], task: Mapping[str, Any], pods: PodsConfig
) -> dict[str, dict[str, Any]]:
    """Return requests and limits.

    A resource is taken as a whole from one source: a request of one above the limit of another
    would be refused.
    """
    config: dict[str, dict[str, Any]] = {"requests": {}, "limits": {}}
    if pods.cpu:
        config["requests"]["cpu"] = pods.cpu
    if pods.memory:
        config["requests"]["memory"] = config["limits"]["memory"] = pods.memory
    if pods.gpus:
        config["requests"][_GPU] = config["limits"][_GPU] = str(pods.gpus)
    found: dict[str, dict[str, Any]] = {"requests": {}, "limits": {}}
    for source in (template, task, config):
        parts = {part: source.get(part) or {} for part in found}
        named = {name for given in parts.values() for name in given}
        for part, given in parts.items():
            kept = {name: value for name, value in found[part].items() if name not in named}
            found[part] = kept | dict(given)
    return {part: entries for part, entries in found.items() if entries}


def _extend(
    holder: dict[str, Any], field: str, more: Iterable[Mapping[str, Any]], *, key: str = "name"
) -> None:
    """Add entries to a list of ``holder``; one of the same ``key`` replaces the former."""
    by_key = {one[key]: one for one in [*holder.get(field, []), *copy.deepcopy(list(more))]}
    if by_key:
        holder[field] = list(by_key.values())


def _set_shm(spec: Mapping[str, Any], container: Mapping[str, Any], size: str) -> None:
    mounts = container.get("volumeMounts", [])
    names = {mount["name"] for mount in mounts if mount["mountPath"] == _SHM_PATH}
    for volume in spec.get("volumes", []):
        if volume["name"] in names and size and "emptyDir" in volume:
            volume["emptyDir"] = {"medium": "Memory", "sizeLimit": size}
