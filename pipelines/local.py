"""Run a pipeline with kfp.local: ``python -m pipelines.local MODULE:PIPELINE ROOT ARGUMENTS``.

It is started by ``pipelines.execution`` as a process of its own, and is the one place that knows
how kfp.local differs from what one would expect:

- A task's output passes through a patched ``print``, which mangles it, and which waits for ever
  when something that the task has started outlives it. Here a task writes to this process's own
  output, and nothing outlives it.
- A task's end says neither which exit status nor how long. Here both are told as events.
- A task with ``set_retry`` is tried again. Here a failure ends the run: retries are for a
  cluster, whose nodes die.
- It warns about image names and settings that only a cluster heeds. That is known, and left out.
"""

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import psutil
from kfp import local
from kfp.local import subprocess_task_handler

from pipelines import events
from pipelines.processes import end_children

__all__ = ["main"]

PATIENCE_S = 10.0
_PR_SET_CHILD_SUBREAPER = 36


class StepFailedError(Exception):
    """A step ended with another status than 0."""


def main(target: str, root: Path, arguments: dict[str, str]) -> int:
    """Run the pipeline ``target`` (``module:name``) and return the exit code.

    Args:
        target: The pipeline, as ``module:name``.
        root: Folder for the artifacts.
        arguments: The pipeline's parameters.
    """
    _adopt_orphans()
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_follow_parent, args=(os.getppid(),), daemon=True).start()
    warnings.filterwarnings("ignore", message="You may be attemping to run a task that uses custom")
    warnings.filterwarnings("ignore", message=r"Task .* no effect in the current local runner")
    subprocess_task_handler.run_local_subprocess = _run_step
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    module, _, name = target.partition(":")
    pipeline = getattr(importlib.import_module(module), name)
    try:
        pipeline(**arguments)
    except StepFailedError:
        return 1
    finally:
        end_children(patience_s=PATIENCE_S)
    return 0


def _run_step(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
    """Run one task to its end; takes the place of kfp's ``run_local_subprocess``.

    Raises:
        StepFailedError: If it ends with another status than 0.
    """
    step = full_command[full_command.index("--function_to_execute") + 1]
    _tell(events.StepBegan(step))
    begin = time.monotonic()
    environment = {**os.environ, **(env_vars or {})}
    status = subprocess.Popen(full_command, env=environment, stdin=subprocess.DEVNULL).wait()
    _end_leftovers(step)
    returncode = status if status >= 0 else 128 - status
    _tell(events.StepEnded(step, round(time.monotonic() - begin, 3), returncode))
    if returncode:
        raise StepFailedError(f"step {step} ended with status {returncode}")
    return returncode


def _end_leftovers(step: str) -> None:
    """End what the step has started and left behind, as a killed torchrun leaves its ranks."""
    psutil.wait_procs(psutil.Process().children(recursive=True), timeout=1)
    left = end_children(patience_s=PATIENCE_S)
    if left:
        _write(f"[{step}] {len(left)} processes outlived the step, and were ended")


def _tell(event: events.StepBegan | events.StepEnded) -> None:
    _write(events.encode(event))


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")  # not print: kfp patches it, to indent what tasks say
    sys.stdout.flush()


def _adopt_orphans() -> None:
    """Let descendants that lose their parent become children of this process (on Linux)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _terminate(signum: int, _frame: object) -> None:
    signal.signal(signum, signal.SIG_IGN)
    sys.exit(128 + signum)


def _follow_parent(parent: int) -> None:
    """End with the process that started this one, even when that was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    end_children(patience_s=PATIENCE_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])))
