"""Processors that this process may keep busy: those of its CPU mask, within its cgroup's quota.

A container with a limit of two processors on a machine of 64 still sees 64 in its mask; what holds
it back is the quota of its cgroup, which Python before 3.13 does not count.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["usable_processors"]


def usable_processors(root: Path = Path("/")) -> int:
    """Return how many processors this process can keep busy at once, at least 1.

    Part of a processor counts as a whole one: with a quota of 1.5, two processes use all of it.

    Args:
        root: Where ``proc`` and ``sys`` lie.
    """
    in_mask = len(os.sched_getaffinity(0))
    return max(1, min([in_mask, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota of this process's cgroup and of each above it that has one, in processors."""
    cgroups = root / "sys/fs/cgroup"
    for line in _words(root / "proc/self/cgroup", separator="\n"):
        _, _, controllers_and_path = line.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        if not controllers:
            for folder in _upwards(cgroups, path):
                yield from _ratio(_words(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for folder in _upwards(cgroups / controllers, path):
                quota, period = folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
                yield from _ratio([*_words(quota), *_words(period)])


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a cgroup and those above it.

    In a container the path may be the host's, and its own cgroup lie right at the mount.
    """
    inside = Path(path.lstrip("/"))
    yield from (mount / folder for folder in (inside, *inside.parents) if ".." not in folder.parts)


def _ratio(words: list[str]) -> Iterator[float]:
    """Yield quota / period, unless there is none (``max`` in cgroup v2, -1 in v1)."""
    try:
        quota, period = (float(word) for word in words)
    except ValueError:
        return
    if quota > 0 and period > 0:
        yield quota / period


def _words(path: Path, *, separator: str | None = None) -> list[str]:
    try:
        return path.read_text().split(separator)
    except OSError:
        return []
