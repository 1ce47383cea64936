"""Follows a run to its end, whatever KFP's API does meanwhile, and shows it step by step."""

import time
from dataclasses import dataclass
from typing import Any

from pipelines.cluster.connection import Connection
from pipelines.cluster.errors import UnavailableError
from pipelines.cluster.progress import FINAL, StepProgress
from pipelines.cluster.workflow import Workflow
from pipelines.view import ConsoleView

__all__ = ["Follower"]

POLL_S = 3.0
_LONGEST_POLL_S = 15.0
_LOOK_CLOSER_S = 20.0
"""How often Argo is asked for what KFP does not tell."""
_UNUSUAL = {"PENDING": "waits to be started", "CANCELING": "is being terminated", "PAUSED": "waits"}


@dataclass
class _Shown:
    """What has been said of a step."""

    state: str = ""
    attempts: int = 1
    message: str = ""


class Follower:
    """Follows one run; goes on where it was when ``follow`` is called again."""

    def __init__(self, connection: Connection, run_id: str, view: ConsoleView) -> None:
        self._connection = connection
        self._run_id = run_id
        self._view = view
        self._shown: dict[str, _Shown] = {}
        self._run_state = ""
        self._is_away = False
        self._looked_at = time.monotonic()
        self.steps: list[StepProgress] = []
        """The steps that have begun."""
        self.workflow: Workflow | None = None
        """The run's pods, as seen last."""

    def follow(self) -> Any:
        """Return the run when it has ended.

        Raises:
            ClusterError: If KFP refuses to tell about it, or it is gone.
        """
        pause_s = POLL_S
        while True:
            try:
                run = self._connection.ask(
                    "the run", self._connection.runs.run_service_get_run, self._run_id
                )
            except UnavailableError as error:
                self._tell_away(error)
                pause_s = min(1.5 * pause_s, _LONGEST_POLL_S)
            else:
                self._tell_back()
                pause_s = POLL_S
                self._show(run)
                if run.state in FINAL:
                    return run
            time.sleep(pause_s)

    def _show(self, run: Any) -> None:
        self.steps = StepProgress.read(run.run_details and run.run_details.task_details)
        if run.state != self._run_state:
            self._run_state = run.state
            if run.state in _UNUSUAL:
                self._view.line("kfp", f"the run {_UNUSUAL[run.state]}")
        has_ended = run.state in FINAL
        for step in self.steps:
            if step.state != "FAILED" or has_ended or step.step in self._shown:
                self._show_step(step)  # else a retry is about to begin it anew
        if has_ended or time.monotonic() - self._looked_at > _LOOK_CLOSER_S:
            self._looked_at = time.monotonic()
            self.workflow = Workflow.read(self._connection, self._run_id) or self.workflow
        if not has_ended:
            self._show_waiting()

    def _show_step(self, step: StepProgress) -> None:
        shown = self._shown.setdefault(step.step, _Shown())
        if step.state == shown.state:
            return
        if shown.state != "RUNNING":
            self._view.begin(step.step)
        shown.state = step.state
        if step.state != "RUNNING":
            note = "cached: the result of an earlier run" if step.is_cached else ""
            self._view.end(step.step, step.seconds, succeeded=step.state == "SUCCEEDED", note=note)

    def _show_waiting(self) -> None:
        """Say why a step that runs does not get on, and that it is tried again."""
        running = [step.step for step in self.steps if step.state == "RUNNING"]
        for step in running if self.workflow else []:
            pods, shown = self.workflow.attempts.get(step, []), self._shown[step]
            if len(pods) > shown.attempts:
                why = f": {pods[-2].message}" if pods[-2].message else ""
                self._view.line(step, f"attempt {len(pods)}; the one before failed{why}")
                shown.attempts = len(pods)
            message = pods[-1].message if pods and pods[-1].phase == "Pending" else ""
            if message and message != shown.message:
                self._view.line(step, f"its pod waits: {message}")
            shown.message = message

    def _tell_away(self, error: UnavailableError) -> None:
        if not self._is_away:
            self._view.line("kfp", f"{error}; the run goes on, and is looked for again")
        self._is_away = True

    def _tell_back(self) -> None:
        if self._is_away:
            self._view.line("kfp", "KFP answers again")
        self._is_away = False
