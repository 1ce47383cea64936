"""What every doorway does around a stage: logging, provenance, failures, exit codes.

A stage is entered by two doorways that do the same: ``python -m plsc.<stage>`` (a person, torchrun,
a Job) and the pipeline's step (``plsc.<stage>.step``). Only doorways configure logging, and only
they end a process.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from plsc import storage
from plsc.artifacts.index import Provenance, now
from plsc.conf import compose, split_overrides, to_dict
from plsc.conf.schema import PipelineConfig
from plsc.errors import PlscError, StorageError

__all__ = [
    "LAUNCHED",
    "RUN_ID",
    "Stopwatch",
    "assign",
    "configure_logging",
    "enter",
    "failure_uri",
    "index_uri",
    "main",
    "step",
    "step_overrides",
]

log = logging.getLogger(__name__)

LAUNCHED = "PLSC_LAUNCHED"
"""Set in the environment of ranks that a step started: the step says when it begins and is done."""

RUN_ID = "PLSC_RUN_ID"
"""Names the run where the parameter ``run_id`` is empty: it is so for preprocess on a cluster, as
KFP's cache would never know a step again whose parameters differ from run to run."""


class Stopwatch:
    """Started when a stage begins; turns into the provenance of what it made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self._start

    def provenance(self, config: PipelineConfig) -> Provenance:
        """Return where an artifact made now, under ``config``, comes from."""
        return Provenance(
            run_id=config.run_id,
            experiment=config.name,
            created_at=now(),
            seconds=round(self.seconds, 3),
            config=to_dict(config),
        )


def index_uri(config: PipelineConfig, step: str) -> str:
    """Return where ``step`` of this run writes its index."""
    return storage.join(config.store_uri, "runs", config.run_id, step, "index.json")


def failure_uri(config: PipelineConfig, step: str) -> str:
    """Return where ``step`` of this run says why it failed."""
    return storage.join(config.store_uri, "runs", config.run_id, step, "failure.json")


def configure_logging(step: str, *, level: int = logging.INFO) -> None:
    """Send log lines to standard output, each led by the step: ``[train] ...``."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"[{step}] %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("plsc").setLevel(level)


@contextmanager
def enter(step: str, config: PipelineConfig) -> Iterator[None]:
    """Run a step's work; on failure leave the reason in the store, then raise it.

    The reason lies at ``failure_uri`` because the artifacts of a failed pipeline task are not
    uploaded.
    """
    watch = Stopwatch()
    level = logging.DEBUG if os.environ.get(LAUNCHED) else logging.INFO
    log.log(level, "begins: experiment %s, run %s", config.name, config.run_id)
    try:
        yield
    except PlscError as error:
        _leave_failure(step, config, error)
        raise
    except Exception as error:
        log.exception("unexpected %s", type(error).__name__)
        _leave_failure(step, config, error)
        raise
    log.log(level, "done in %.1f s", watch.seconds)


def _leave_failure(step: str, config: PipelineConfig, error: Exception) -> None:
    code = error.exit_code if isinstance(error, PlscError) else 1
    document = {
        "step": step,
        "error": type(error).__name__,
        "message": str(error),
        "exit_code": code,
        "at": now(),
    }
    try:
        storage.write_bytes(failure_uri(config, step), json.dumps(document, indent=1).encode())
    except StorageError as failure:
        log.warning("the reason could not be left in the store: %s", failure)


def step_overrides(
    *, overrides: str, data_uri: str, run_id: str, inputs: dict[str, str] | None = None
) -> list[str]:
    """Return the Hydra overrides that a step's parameters stand for; later ones win.

    Args:
        overrides: The pipeline's parameter of that name: Hydra overrides in one line. They win over
            ``data_uri`` and ``run_id``.
        data_uri: Likewise; empty means the experiment's own.
        run_id: The pipeline run.
        inputs: Configuration key -> uri of each index that another step hands on; they win over
            everything.

    Raises:
        ConfigError: If a quote is not closed.
    """
    given = {"run_id": run_id} | ({"data_uri": data_uri} if data_uri else {})
    return [
        *(assign(key, value) for key, value in given.items()),
        *split_overrides(overrides),
        *(assign(key, value) for key, value in (inputs or {}).items()),
    ]


@contextmanager
def step(
    name: str,
    *,
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    inputs: dict[str, str] | None = None,
) -> Iterator[PipelineConfig]:
    """Enter a stage as a step of the pipeline: configure logging, compose, and ``enter``.

    Args:
        name: The step.
        experiment: The pipeline's parameter of that name.
        overrides: As for ``step_overrides``; so the others.
        data_uri: Folder of the input; empty: the experiment's own.
        run_id: The pipeline run; empty: the one that ``PLSC_RUN_ID`` names.
        inputs: Configuration key -> uri of each index that another step hands on.

    Raises:
        ConfigError: If the configuration is wrong.
    """
    configure_logging(name)
    run_id = run_id or os.environ.get(RUN_ID, "")
    with _told():
        given = step_overrides(overrides=overrides, data_uri=data_uri, run_id=run_id, inputs=inputs)
        config = compose(experiment, *given)
        with enter(name, config):
            yield config


def assign(key: str, value: str) -> str:
    """Return the Hydra override that sets ``key`` to the string ``value``, whatever it holds."""
    escaped = value.replace('"', '\\"')
    return f'{key}="{escaped}"'


@contextmanager
def main(step: str) -> Iterator[None]:
    """Wrap a ``__main__``: configure logging and end the process with the error's exit code.

    Under torchrun only rank 0 logs information; the others log from warnings up.
    """
    first = os.environ.get("RANK", "0") == "0"
    configure_logging(step, level=logging.INFO if first else logging.WARNING)
    try:
        with _told():
            yield
    except PlscError as error:
        sys.exit(error.exit_code)


@contextmanager
def _told() -> Iterator[None]:
    """Log an error that is written for people, without a traceback, and raise it again."""
    try:
        yield
    except PlscError as error:
        log.error("%s: %s", type(error).__name__, error)  # noqa: TRY400
        raise
