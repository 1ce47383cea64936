"""Runs pipelines and commands as processes of their own, keeps logs, tells how steps ended."""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from pipelines import events
from pipelines.processes import end_session

__all__ = ["Execution", "View"]

PATIENCE_S = 15.0


class View(Protocol):
    """Shows a run while it goes on."""

    def begin(self, step: str) -> None:
        """A step begins."""

    def line(self, step: str, text: str) -> None:
        """A step says something meant for people."""

    def end(self, step: str, seconds: float, *, succeeded: bool) -> None:
        """A step has ended."""


class Execution:
    """One run: what it executes, and how far it got.

    Whatever ends one of its methods, a signal's exception included, nothing that was started goes
    on running.
    """

    def __init__(self, folder: Path, view: View) -> None:
        """Prepare a run.

        Args:
            folder: Gets ``pipeline.log``, ``logs/<step>.log`` and ``artifacts/``.
            view: Is told what happens.
        """
        self._folder = folder
        self._view = view
        self.seconds: dict[str, float] = {}
        """Step -> wall seconds, its process's start included, in the order they ran in."""
        self.current_step = ""
        """The step that runs, or at which the run ended early; empty between steps."""
        self.returncode = 0
        """What the last step ended with, as a shell tells it: 128 + n is an end by signal n."""

    def log_path(self, step: str) -> Path:
        """Return the log of a step; of the whole run when ``step`` is empty."""
        return self._folder / "logs" / f"{step}.log" if step else self._folder / "pipeline.log"

    def run_pipeline(
        self, target: str, arguments: Mapping[str, str], environment: Mapping[str, str]
    ) -> bool:
        """Run a pipeline and return whether all of it succeeded.

        Args:
            target: The pipeline, as ``module:name``.
            arguments: Its parameters.
            environment: The environment of every step.
        """
        root = str(self._folder / "artifacts")
        return (
            self._watch(
                ["-m", "pipelines.local", target, root, json.dumps(dict(arguments))], environment
            )
            == 0
        )

    def run_command(
        self, step: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> bool:
        """Run Python with ``arguments`` as a step of its own; return whether it did well."""
        with self.preparation(step):
            self.returncode = self._watch(arguments, environment)
        return self.returncode == 0

    @contextmanager
    def preparation(self, step: str) -> Iterator[None]:
        """Show what the block does as a step before the pipeline."""
        self.returncode = 0
        self._begin(step)
        start = time.monotonic()
        yield
        self._end(step, time.monotonic() - start, self.returncode)

    def _watch(self, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run Python with ``arguments``, follow its output, return its status as a shell does."""
        with (
            _private_tmp() as tmp,
            _session([sys.executable, *arguments], {**environment, "TMPDIR": tmp}) as process,
        ):
            for line in _lines(process):
                event = events.decode(line)
                if event is None:
                    self._say(line)
                elif isinstance(event, events.StepBegan):
                    self._begin(event.step)
                else:
                    self.seconds[event.step] = event.seconds
                    self._end(event.step, event.seconds, event.returncode)
            status = process.wait()
        return status if status >= 0 else 128 - status

    def _begin(self, step: str) -> None:
        self.current_step = step
        self._view.begin(step)

    def _end(self, step: str, seconds: float, returncode: int) -> None:
        self.returncode = returncode
        self._view.end(step, seconds, succeeded=returncode == 0)
        if returncode == 0:
            self.current_step = ""

    def _say(self, line: str) -> None:
        for step in dict.fromkeys(("", self.current_step)):
            path = self.log_path(step)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        said = re.fullmatch(r"\[([a-z]+)\] (.*)", line)
        if said and said[1] == self.current_step:
            self._view.line(*said.groups())


@contextmanager
def _private_tmp() -> Iterator[str]:
    """Give a temporary folder that is removed at the end: kfp.local leaves one in it per task."""
    path = tempfile.mkdtemp(prefix="plsc-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _session(
    command: list[str], environment: Mapping[str, str]
) -> "Iterator[subprocess.Popen[bytes]]":
    """Give a process in a session of its own, out of Ctrl-C's reach; at the end, end it all."""
    process = subprocess.Popen(
        command,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end_session(process, patience_s=PATIENCE_S)
        assert process.stdout is not None
        process.stdout.close()


def _lines(process: "subprocess.Popen[bytes]") -> Iterator[str]:
    """Yield what ``process`` writes, until it ends, even if others keep its output open."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    rest = b""
    while True:
        is_ready = bool(select.select([descriptor], [], [], 0.5)[0])
        if not is_ready and process.poll() is not None:
            break
        chunk = os.read(descriptor, 1 << 16) if is_ready else b""
        if is_ready and not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
    if rest:
        yield rest.decode(errors="replace")
