"""How far a run is: the state of each step, from what KFP tells of Argo's nodes.

A step ``train`` is two of them at the top, ``train-driver`` (it looks into KFP's cache and works
out the pod) and ``train``, and below that one that is named ``executor``. Where KFP lets Argo try
things again, ``train(0)``, ``train(1)``, ... lie in between, which do not matter here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

__all__ = ["FINAL", "StepProgress", "was_terminated"]

FINAL = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
"""States in which a run stays."""

_DRIVER = "-driver"
_CONTROL = {"root"}
_BEGUN = {"PENDING", "RUNNING", "SUCCEEDED", "FAILED", "SKIPPED"}  # what is left out has none
_TERMINATION = {"CANCELING", "CANCELED"}


@dataclass(frozen=True)
class StepProgress:
    """How far one step is."""

    step: str
    state: str
    """RUNNING, SUCCEEDED or FAILED."""
    seconds: float
    """From the start of its driver."""
    is_cached: bool = False
    """Whether the result of an earlier run was taken."""

    @classmethod
    def read(cls, details: Iterable[Any] | None) -> "list[StepProgress]":
        """Return the steps that have begun, in that order.

        Args:
            details: The run's ``task_details``.
        """
        tasks = [task for task in details or () if task.display_name and task.state in _BEGUN]
        named = {task.display_name: task for task in tasks}
        steps = [
            _progress(named[name], named.get(name.removesuffix(_DRIVER)), tasks)
            for name in named
            if name.endswith(_DRIVER) and name.removesuffix(_DRIVER) not in _CONTROL
        ]
        began = {task.display_name: task.start_time for task in tasks}
        return sorted(steps, key=lambda step: (began[step.step + _DRIVER], step.step))


def was_terminated(run: Any) -> bool:
    """Return whether a run that has ended was terminated by somebody.

    Such a run ends as FAILED, and only its history tells. A run that was retried later, and failed
    then, was not.
    """
    history = [status.state for status in run.state_history or ()]
    before = [state for state in history if state not in FINAL - {"CANCELED"}]
    return run.state == "CANCELED" or (
        run.state == "FAILED" and bool(before) and before[-1] in _TERMINATION
    )


def _progress(driver: Any, task: Any | None, tasks: list[Any]) -> StepProgress:
    step = driver.display_name.removesuffix(_DRIVER)
    if driver.state == "FAILED":
        return StepProgress(step, "FAILED", _seconds(driver.start_time, driver.end_time))
    if task is None:
        return StepProgress(step, "RUNNING", _seconds(driver.start_time, None))
    begin, end = task.start_time, _end(task)
    is_cached = any(
        other.display_name == "executor" and other.state == "SKIPPED" and other.start_time == begin
        for other in tasks
    )
    state = task.state if task.state in {"SUCCEEDED", "FAILED"} else "RUNNING"
    return StepProgress(
        step, state, _seconds(driver.start_time, end), is_cached=is_cached and state == "SUCCEEDED"
    )


def _end(task: Any) -> datetime | None:
    """Return when ``task`` ended; KFP gives a year long ago to what has not."""
    end: datetime | None = task.end_time
    return end if end is not None and end >= task.start_time else None


def _seconds(begin: datetime, end: datetime | None) -> float:
    ended = end if end is not None and end >= begin else _now()
    return max(0.0, (ended - begin).total_seconds())


def _now() -> datetime:
    return datetime.now(UTC)
