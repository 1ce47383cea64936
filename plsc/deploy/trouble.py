"""Trouble: what keeps a Triton's pod from being ready, in words."""

from collections.abc import Mapping
from typing import Any

from plsc.cluster.api import Api
from plsc.cluster.diagnosis import endings, obstacles
from plsc.conf.pods import PodsConfig
from plsc.errors import ClusterError

__all__ = ["is_hopeless", "is_ready", "last_words", "troubles"]

_LINES = 50
_WORDS = 6


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod takes requests."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod.get("status", {}).get("conditions", [])
    )


def troubles(pod: Mapping[str, Any]) -> list[str]:
    """Return why a pod does not start, or how it ended before, one line each."""
    found = [f"{one.pod}: {one}" for one in obstacles(pod)]
    return found + [str(one) for one in endings(pod)[-1:]]


def is_hopeless(pod: Mapping[str, Any]) -> bool:
    """Return whether waiting cannot help: there can be no image of the name."""
    return any(not one.limit_s(PodsConfig()) for one in obstacles(pod))


def last_words(api: Api, pod: Mapping[str, Any]) -> str:
    """Return the errors at the end of the log of a pod that is not ready, else its last lines.

    Nothing where there is no log.
    """
    name = pod["metadata"]["name"]
    container = pod["spec"]["containers"][0]["name"]
    runs = any(
        "running" in status.get("state", {})
        for status in pod.get("status", {}).get("containerStatuses", [])
    )
    try:
        given = [line for _, line in api.log(name, container, tail=_LINES, previous=not runs)]
    except ClusterError:
        return ""
    lines = ([line for line in given if " E " in line] or given)[-_WORDS:]
    return "".join(f"\n    {line[:300]}" for line in lines if line.strip())
