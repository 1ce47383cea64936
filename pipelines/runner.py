"""Runs the river on this machine: servers, sample data, pipeline, summary; one run at a time."""

import fcntl
import os
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pipelines import outcome, sample_data, services
from pipelines.execution import Execution
from pipelines.failure import has_checkpoint, print_failure
from pipelines.outcome import Failure, Indexes, Outcome
from pipelines.request import Request
from pipelines.signals import Stopped, stoppable
from pipelines.summary import print_summary
from pipelines.view import ConsoleView
from plsc.conf.schema import PipelineConfig
from plsc.errors import PlscError

__all__ = ["RunnerBusyError", "run"]

PIPELINE = "pipelines.end_to_end:end_to_end"


class RunnerBusyError(Exception):
    """Another run goes on in the same state folder."""


def run(request: Request, console: Console, *, pipeline: str = PIPELINE) -> int:
    """Run the pipeline and return the exit code: 0, the failed step's, or 128 + n after signal n.

    Args:
        request: What to run.
        console: Shows it.
        pipeline: The pipeline, as ``module:name``.

    Raises:
        ConfigError: If the configuration is wrong; nothing was started then.
        RunnerBusyError: If another run goes on there.
    """
    config = request.compose(f"{request.experiment}-{time.strftime('%Y%m%d-%H%M%S')}")
    with _exclusive(request.state_path), ConsoleView(console) as view:
        return _Run(request, config, console, view).run(pipeline)


@contextmanager
def _exclusive(state_path: Path) -> Iterator[None]:
    """Hold the state folder's run lock, which the kernel frees even when this process is killed."""
    state_path.mkdir(parents=True, exist_ok=True)
    with (state_path / "run.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunnerBusyError(
                f"another run (process {file.read().strip() or 'unknown'}) goes on in {state_path}:"
                " wait for it, stop it, or use another folder (--state-dir)"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class _Run:
    """One run, from the servers to the summary."""

    def __init__(
        self, request: Request, config: PipelineConfig, console: Console, view: ConsoleView
    ) -> None:
        self._request = request
        self._config = config
        self._console = console
        self._folder = request.state_path / "runs" / config.run_id
        self._folder.mkdir(parents=True, exist_ok=True)
        self._execution = Execution(self._folder, view)
        self._start = time.monotonic()

    def run(self, pipeline: str) -> int:
        """Run everything and return the exit code."""
        self._console.print(Text.assemble("run ", (self._config.run_id, "bold")), soft_wrap=True)
        try:
            with stoppable():
                self._prepare()
                failure = None if self._run_pipeline(pipeline) else self._failure()
        except Stopped as stopped:
            failure = self._failed(f"stopped by {stopped.name}", stopped.exit_code)
        except (PlscError, services.ServicesError) as error:
            failure = self._failed(str(error), getattr(error, "exit_code", 1))
        return self._conclude(failure)

    def _prepare(self) -> None:
        """Start the servers, and make the sample data if it is missing."""
        with self._execution.preparation("services"):
            os.environ.update(services.up(self._request.state_path).environment())
        self._config = self._request.compose(self._config.run_id)
        experiment = self._request.experiment
        if sample_data.is_missing(self._config, experiment):
            command = sample_data.build_command(self._config, experiment)
            if not self._execution.run_command("glyphs", command, os.environ):
                raise PlscError(
                    f"the sample data could not be made: see {self._execution.log_path('glyphs')}"
                )

    def _run_pipeline(self, pipeline: str) -> bool:
        parameters = self._request.parameters()
        parameters["overrides"] += f" {shlex.quote('run_id=' + self._config.run_id)}"
        return self._execution.run_pipeline(pipeline, parameters, os.environ)

    def _failure(self) -> Failure:
        """Return what the failed step said; it says nothing when it was killed."""
        step, status = self._execution.current_step, self._execution.returncode
        if not step:
            return self._failed("the process that runs the pipeline ended early", 1)
        said = outcome.read_failure(self._config, step)
        if said:
            return said
        how = f"status {status}"
        if status - 128 in list(signal.Signals):
            how = f"killed by {signal.Signals(status - 128).name}"
        return self._failed(f"its process ended ({how}) and left no reason", 1)

    def _failed(self, message: str, exit_code: int) -> Failure:
        return Failure(self._execution.current_step or "pipeline", message, exit_code)

    def _conclude(self, failure: Failure | None) -> int:
        """Write and print the outcome, and return the exit code."""
        indexes = Indexes()
        try:
            if self._execution.seconds:  # else no step has ended, and the store may not even be up
                indexes = Indexes.read(self._config)
        except PlscError as error:
            failure = failure or Failure(
                "pipeline", f"what it made cannot be read: {error}", error.exit_code
            )
        ended = Outcome(
            run_id=self._config.run_id,
            experiment=self._request.experiment,
            seconds=round(time.monotonic() - self._start, 3),
            step_seconds=self._execution.seconds,
            indexes=indexes,
            failure=failure,
        )
        for path in (self._folder / "run.json", self._request.state_path / "last-run.json"):
            outcome.write(outcome.to_document(ended), path)
        if failure:
            self._print_failure(failure, ended)
            return failure.exit_code
        self._print_success(ended)
        return 0

    def _print_failure(self, failure: Failure, ended: Outcome) -> None:
        can_resume = failure.step == "train" and has_checkpoint(self._config)
        run_id = self._config.run_id
        command = self._request.run_command(resume_run=run_id) if can_resume else ""
        log_path = self._execution.log_path(self._execution.current_step)
        print_failure(
            self._console, failure, seconds=ended.seconds, log_path=log_path, command=command
        )

    def _print_success(self, ended: Outcome) -> None:
        folder = self._request.state_path / "samples"
        try:
            samples = sample_data.download_samples(self._config, folder)
        except PlscError as error:
            self._console.print(Text(f"no images to try: {error}", style="yellow"), soft_wrap=True)
            samples = []
        print_summary(
            self._console,
            ended,
            request=self._request,
            thresholds=dict(self._config.evaluate.thresholds),
            samples=samples,
        )
