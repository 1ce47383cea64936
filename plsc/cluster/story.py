"""Why a job failed: the culprit in a few lines, and everything about its pods in a file."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plsc import storage
from plsc.cluster.api import Api
from plsc.cluster.diagnosis import Ending, endings, was_evicted
from plsc.cluster.events import Events, told, when
from plsc.cluster.job_request import JobRequest
from plsc.cluster.judgement import memory_advice
from plsc.errors import ClusterError, StorageError

__all__ = ["Story", "tell_story"]

log = logging.getLogger(__name__)

_SHOWN_LINES = 30
_KEPT_LINES = 200
_KEPT_PODS = 32
_STOPPED = 143  # by SIGTERM: others had failed before


@dataclass(frozen=True)
class Story:
    """What is known about a failure.

    Attributes:
        culprit: How the container ended that seems to have begun it; None: unknown.
        lines: Its last lines, 30 at most.
        report_uri: Where everything is told; empty: it could not be written.
    """

    culprit: Ending | None
    lines: Sequence[str]
    report_uri: str

    def told(self, request: JobRequest, why: str) -> str:
        """Return the text of an error, beginning with ``why``."""
        text = why
        if self.culprit is not None and not self._is_told_by(why):
            text += f"; {self.culprit}"
            if self.culprit.was_out_of_memory:
                text += f"; {memory_advice(request, self.culprit)}"
        if self.report_uri:
            text += f"; more about its pods: {self.report_uri}"
        if self.lines:
            text += f"; last lines of {self.culprit.pod if self.culprit else 'it'}:\n"
            text += "\n".join(f"    {line}" for line in self.lines)
        return text

    def _is_told_by(self, why: str) -> bool:
        assert self.culprit is not None
        return self.culprit.was_out_of_memory and self.culprit.reason in why


def tell_story(
    api: Api,
    request: JobRequest,
    pods: Sequence[Mapping[str, Any]],
    why: str,
    *,
    failed: Collection[str] = (),
) -> Story:
    """Read what can be read about the pods of a failed job, and write it to ``report_uri``.

    Never raises: the reason of the failure is more important than its story.

    Args:
        api: The cluster.
        request: The job.
        pods: Its pods, as the API gives them.
        why: What is known already.
        failed: Indexes of an Indexed Job that were given up: others may have failed and done better
            then.
    """
    found = [one for pod in pods for one in endings(pod)]
    culprit = find_culprit([one for one in found if one.index in failed] or found)
    lines = _lines(api, culprit, _SHOWN_LINES) if culprit else []
    text = _report(api, request, pods, why)
    try:
        storage.write_bytes(request.report_uri, text.encode())
    except StorageError as error:
        log.warning("the story of the failed pods could not be written: %s", error)
        return Story(culprit, lines, "")
    return Story(culprit, lines, request.report_uri)


def find_culprit(found: Iterable[Ending]) -> Ending | None:
    """Return the failed ending that seems to have begun it all.

    Memory comes first, then what failed by itself before what was stopped; among equals the first.
    """
    failed = [one for one in found if one.exit_code]
    return min(
        failed,
        key=lambda one: (
            not one.was_out_of_memory,
            one.is_disrupted,
            one.exit_code == _STOPPED,
            one.is_of_former,
            one.finished_at,
        ),
        default=None,
    )


def _lines(api: Api, ending: Ending, tail: int) -> list[str]:
    try:
        found = api.log(ending.pod, ending.container, tail=tail, previous=ending.is_of_former)
        return [text for _, text in found]
    except ClusterError as error:
        return [f"(its log cannot be read: {error})"]


def _report(api: Api, request: JobRequest, pods: Sequence[Mapping[str, Any]], why: str) -> str:
    events = Events(api)
    parts = [f"{request.title}, run {request.run_id}\n{why}\n", *_events(events, request.name)]
    in_trouble = [pod for pod in pods if (pod.get("status") or {}).get("phase") != "Succeeded"]
    if not in_trouble:
        parts.append("none of its pods is left, or all succeeded")
    for pod in in_trouble[:_KEPT_PODS]:
        parts += _about(api, events, pod)
    left_out = len(in_trouble) - _KEPT_PODS
    if left_out > 0:
        parts.append(f"\n{left_out} more pods are left out")
    return "\n".join(parts) + "\n"


def _about(api: Api, events: Events, pod: Mapping[str, Any]) -> list[str]:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    node = (pod.get("spec") or {}).get("nodeName", "no node")
    parts = [f"\n== pod {name} on {node}: {status.get('phase', 'unknown')}"]
    if was_evicted(pod):
        parts.append("taken away by the cluster (evicted, preempted or drained)")
    if status.get("message"):
        parts.append(f"{status.get('reason', '')}: {status['message']}")
    parts += [
        f"{one['type']}: {one.get('reason', '')}: {one['message']}"
        for one in status.get("conditions") or []
        if one.get("status") != "True" and one.get("message")
    ]
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            parts.append(
                f"container {container['name']} waits: {waiting['reason']}: "
                f"{waiting.get('message', '')}"
            )
    parts += _events(events, name)
    for ending in endings(pod):
        former = ", before it was started again" if ending.is_of_former else ""
        parts.append(f"-- {ending}, at {ending.finished_at}{former}; last lines:")
        parts += _lines(api, ending, _KEPT_LINES)
    running = [
        one["name"]
        for one in status.get("containerStatuses") or []
        if "running" in (one.get("state") or {})
    ]
    for container in running:
        parts.append(f"-- container {container} runs; last lines:")
        parts += _lines(api, Ending(name, "", container, "", 0), _KEPT_LINES)
    return parts


def _events(events: Events, name: str) -> list[str]:
    return [f"event {when(event)} {told(event)}" for event in events.of(name)]
