"""Runs of the pipeline on the cluster: submitted, followed, terminated, retried."""

import contextlib
import os
import shlex
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pipelines import outcome
from pipelines.cluster.connection import Connection
from pipelines.cluster.failure import explain
from pipelines.cluster.following import Follower
from pipelines.cluster.interruption import Choice, ask, interruptible
from pipelines.cluster.progress import FINAL, was_terminated
from pipelines.cluster.upload import start_run, upload
from pipelines.failure import print_failure
from pipelines.outcome import Failure, Indexes, Outcome
from pipelines.request import Request
from pipelines.signals import Stopped
from pipelines.summary import print_lines, print_results
from pipelines.view import ConsoleView
from plsc.conf.schema import PipelineConfig
from plsc.errors import ClusterError, PlscError

__all__ = ["follow", "retry", "submit", "terminate"]

_INTERRUPTED = 130
_TERMINATED = 143


class _EndedError(ClusterError):
    """The run has ended already."""


def submit(connection: Connection, compiled: str, request: Request, console: Console) -> int:
    """Run ``compiled``, follow it, and return the exit code.

    It is 0, the failed step's, 130 after Ctrl-C and 128 + n after another signal, whether the run
    goes on or was terminated, or 143 when somebody else has terminated it.

    Args:
        connection: To KFP.
        compiled: The compiled pipeline, YAML; the cluster must be able to get its images.
        request: What to run.
        console: Shows it.

    Raises:
        UncertainError: If KFP does not tell whether the run was started.
        ClusterError: If KFP cannot be reached, or refuses; nothing was started then.
    """
    name = f"{request.experiment}-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"
    version = upload(connection, compiled)
    run_id = start_run(connection, version, request.parameters(), name=name)
    return _Run(connection, request, run_id, console).follow()


def follow(connection: Connection, run_id: str, state_path: Path, console: Console) -> int:
    """Follow a run that was started before, and return the exit code, as ``submit`` does.

    Raises:
        ClusterError: If there is no such run, or KFP cannot be reached.
    """
    run = connection.insist("the run", connection.runs.run_service_get_run, run_id)
    given = (run.runtime_config and run.runtime_config.parameters) or {}
    request = Request(
        experiment=str(given.get("experiment", "")),
        overrides=str(given.get("overrides", "")),
        data_uri=str(given.get("data_uri", "")),
        resume_run=str(given.get("resume_run", "")),
        state_path=state_path,
    )
    return _Run(connection, request, run_id, console).follow()


def terminate(connection: Connection, run_id: str) -> None:
    """End a run; ``retry`` goes on with it.

    Raises:
        ClusterError: If there is no such run, or it has ended.
    """
    state = _state(connection, run_id)
    if state in FINAL:
        raise _EndedError(f"run {run_id} has ended already: {state}")
    connection.insist("the run", connection.runs.run_service_terminate_run, run_id)


def retry(connection: Connection, run_id: str) -> None:
    """Go on with a run that has failed or was terminated: the same run, from its failed step.

    Raises:
        ClusterError: If there is no such run, or it goes on, or has succeeded.
    """
    state = _state(connection, run_id)
    if state not in {"FAILED", "CANCELED"}:
        raise ClusterError(f"only a run that failed or was terminated is retried; it is {state}")
    connection.insist("the run", connection.runs.run_service_retry_run, run_id)


def _state(connection: Connection, run_id: str) -> str:
    run = connection.insist("the run", connection.runs.run_service_get_run, run_id)
    return str(run.state)


class _Run:
    def __init__(
        self, connection: Connection, request: Request, run_id: str, console: Console
    ) -> None:
        self._connection = connection
        self._request = request
        self._run_id = run_id
        self._console = console
        self._folder = request.state_path / "runs" / run_id
        self._view = ConsoleView(console)
        self._follower = Follower(connection, run_id, self._view)
        self._is_ended_here = False

    def follow(self) -> int:
        """Follow the run and return the exit code."""
        self._print(Text.assemble("run ", (self._run_id, "bold")))
        self._print(Text(self._connection.link(self._run_id)))
        try:
            with interruptible(), self._view:
                run = self._await_end()
        except Stopped as stopped:
            return self._detached(stopped.exit_code)
        except ClusterError as error:
            self._print(Text.assemble(("the run is lost from sight: ", "bold red"), str(error)))
            return self._detached(error.exit_code)
        return self._detached(_INTERRUPTED) if run is None else self._conclude(run)

    def _await_end(self) -> Any | None:
        """Return the run when it has ended, or None if it is to go on alone."""
        is_told = False
        while True:
            try:
                if self._is_ended_here and not is_told:
                    with contextlib.suppress(_EndedError):  # while the question stood
                        terminate(self._connection, self._run_id)
                    is_told = True
                return self._follower.follow()
            except KeyboardInterrupt:
                choice = Choice.DETACH if self._is_ended_here else ask(self._view)
                if choice is Choice.DETACH:
                    return None
                self._is_ended_here = choice is Choice.TERMINATE

    def _detached(self, exit_code: int) -> int:
        self._print(Text("\nThe run goes on without this command."))
        self._tell_commands("follow", "terminate")
        return exit_code

    def _conclude(self, run: Any) -> int:
        """Write and print the outcome, and return the exit code."""
        config = self._config()
        failure = None if run.state == "SUCCEEDED" else self._failure(run, config)
        ended = Outcome(
            run_id=self._run_id,
            experiment=self._request.experiment,
            seconds=_seconds(run),
            step_seconds={step.step: round(step.seconds, 3) for step in self._follower.steps},
            indexes=self._indexes(config),
            failure=failure,
        )
        for path in (self._folder / "run.json", self._request.state_path / "last-run.json"):
            outcome.write(outcome.to_document(ended), path)
        if failure is None:
            thresholds = dict(config.evaluate.thresholds) if config else {}
            print_results(self._console, ended, thresholds=thresholds)
            print_lines(self._console, {"its page": self._connection.link(self._run_id)})
            return 0
        self._print_failure(failure, ended, is_terminated=was_terminated(run))
        return failure.exit_code

    def _failure(self, run: Any, config: PipelineConfig | None) -> Failure:
        if was_terminated(run):
            step = next((s.step for s in self._follower.steps if s.state != "SUCCEEDED"), "")
            code = _INTERRUPTED if self._is_ended_here else _TERMINATED
            return Failure(step or "pipeline", "the run was terminated", code)
        return explain(
            self._connection, self._run_id, self._follower.steps, self._follower.workflow,
            config=config, log_path=self._folder / "logs",
        )  # fmt: skip

    def _config(self) -> PipelineConfig | None:
        """Return the run's configuration, if this machine knows where the run's store is."""
        try:
            has_store = bool(os.environ.get("PLSC_STORE_URI"))
            return self._request.compose(self._run_id) if has_store else None
        except PlscError:
            return None

    def _indexes(self, config: PipelineConfig | None) -> Indexes:
        try:
            return Indexes.read(config) if config else Indexes()
        except PlscError as error:
            self._print(Text(f"what it made cannot be read from here: {error}", style="yellow"))
            return Indexes()

    def _print_failure(self, failure: Failure, ended: Outcome, *, is_terminated: bool) -> None:
        if is_terminated:
            told = f"\nthe run was terminated in {failure.step}"
            self._print(Text(told, style="bold yellow"))
        else:
            log_path = self._folder / "logs" / f"{failure.step}.log"
            print_failure(
                self._console, failure, seconds=ended.seconds, log_path=log_path, command=""
            )
        self._print(
            Text("\nA retry repeats what failed; training goes on from its last checkpoint.")
        )
        self._tell_commands("retry")

    def _tell_commands(self, *targets: str) -> None:
        host = shlex.quote(self._connection.settings.host)
        commands = {}
        for target in targets:
            command = self._request.command(f"pipeline-{target}", RUN=self._run_id)
            commands[target] = f"KFP_HOST={host} {command}"
        print_lines(self._console, commands)

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def _seconds(run: Any) -> float:
    begin, end = run.created_at, run.finished_at
    return round(max(0.0, (end - begin).total_seconds()), 3) if begin and end else 0.0
