"""Training an experiment in a local folder as the pipeline does, and verifying what it learned.

What the benchmarks share whose figure is an accuracy. Layout of the folder: ``data/<experiment>``
(the input), ``datasets`` (its shards), ``runs/<run_id>`` (checkpoints, reports). The data set is
made once; a run whose checkpoints lie there goes on from the newest.
"""

import json
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from plsc import doorway, storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.conf import compose
from plsc.conf.schema import PipelineConfig
from plsc.datasets.glyphs import FILE_LIST, build
from plsc.datasets.recipes import RECIPES
from plsc.evaluate.stage import run as evaluate
from plsc.preprocess.stage import run as preprocess

__all__ = ["Place", "Training", "add_place_arguments", "say"]

_STEP = (
    "import json, sys; from plsc.train.step import run_step;"
    "run_step(**json.loads(sys.argv[1]), metadata={}, metrics={})"
)
_SECONDS_BETWEEN_LINES = 20


def say(line: str) -> None:
    """Show progress, beside the figures on standard output."""
    print(line, file=sys.stderr, flush=True)


def add_place_arguments(parser: ArgumentParser) -> None:
    """Add what a ``Place`` is made of."""
    parser.add_argument("--experiment", default="glyphs", choices=sorted(RECIPES))
    parser.add_argument("--folder", type=Path, default=Path(".plsc/benchmarks"))
    parser.add_argument("--overrides", default="", help="Hydra overrides of every training")


@dataclass(frozen=True)
class Place:
    """A folder in which an experiment's data set lies and is trained on."""

    experiment: str
    folder: Path
    overrides: tuple[str, ...] = ()

    def config(self, run_id: str, *overrides: str) -> PipelineConfig:
        """Return the configuration of a run here."""
        return compose(self.experiment, f"run_id={run_id}", *self._overrides(*overrides))

    def prepare(self) -> None:
        """Make the input and its shards unless they are there."""
        config = self.config("prepare")
        if not storage.exists(storage.join(config.data_uri, FILE_LIST)):
            say(f"painting the data set of {self.experiment} ...")
            build(RECIPES[self.experiment], config.data_uri)
        say("preprocessing ...")
        preprocess(config)

    def train(self, run_id: str, *overrides: str) -> "Training":
        """Start to train, or to go on training, and return at once."""
        parameters = {
            "experiment": self.experiment,
            "overrides": shlex.join(self._overrides(*overrides)),
            "data_uri": "",
            "run_id": run_id,
            "resume_run": "",
            "dataset_path": doorway.index_uri(self.config("prepare"), "preprocess"),
            "model_path": str(self.folder.resolve() / "runs" / run_id / "model.json"),
        }
        return Training(run_id, parameters)

    def checkpoint(self, run_id: str) -> Checkpoint:
        """Return the last checkpoint of a run that has ended."""
        return Checkpoint.read(doorway.index_uri(self.config(run_id), "train"))

    def accuracies(self, run_id: str) -> dict[str, float]:
        """Return the accuracy (0..1) per benchmark, by the pipeline's evaluate stage."""
        say(f"{run_id}: verifying ...")
        return {result.name: result.accuracy for result in evaluate(self.config(run_id)).benchmarks}

    def _overrides(self, *overrides: str) -> list[str]:
        store = doorway.assign("store_uri", str(self.folder.resolve()))
        return [store, *self.overrides, *overrides]


class Training:
    """The pipeline's train step in a child process; leaving the block ends it, ranks and all.

    Attributes:
        step: Last step it spoke of; 0 before the first.
        resumed_from: Step of the checkpoint that it went on from; 0 if there was none.
        seconds_per_step: Between the last two lines with a step; 0 before there were two.
        process: The child; torchrun is a child of it, the ranks are torchrun's.
    """

    def __init__(self, run_id: str, parameters: dict[str, str]) -> None:
        self.step = self.resumed_from = 0
        self.seconds_per_step = 0.0
        self._run_id = run_id
        self._last_lines: deque[str] = deque(maxlen=40)
        command = [sys.executable, "-c", _STEP, json.dumps(parameters)]
        self.process = subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Training":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)  # the step hands it on to its ranks
        self.process.wait()
        self._reader.join()

    @property
    def is_running(self) -> bool:
        """Whether the child still runs."""
        return self.process.poll() is None

    @property
    def last_words(self) -> str:
        """What it said last, in lines; all of that once it has ended."""
        if not self.is_running:
            self._reader.join(timeout=10)
        return "\n".join(self._last_lines)

    def finish(self) -> None:
        """Wait for the end.

        Raises:
            RuntimeError: If it failed; with what it said last.
        """
        code = self.process.wait()
        self._reader.join()
        if code:
            raise RuntimeError(f"training {self._run_id} ended with {code}:\n{self.last_words}")

    def _read(self) -> None:
        assert self.process.stdout is not None
        shown, moment = time.monotonic(), None
        for line in self.process.stdout:
            self._last_lines.append(line.rstrip())
            if found := re.search(r"resumes run \S+ from step (\d+)", line):
                self.resumed_from = self.step = int(found[1])
            if not (found := re.search(r"\bstep (\d+)/\d+ ", line)):
                continue
            now, step = time.monotonic(), int(found[1])
            if moment is not None and step > self.step:
                self.seconds_per_step = (now - moment) / (step - self.step)
            self.step, moment = step, now
            if now - shown >= _SECONDS_BETWEEN_LINES:
                shown = now
                say(f"{self._run_id}: {line.removeprefix('[train]').strip()}")
