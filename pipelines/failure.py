"""What a person is told when a run fails: the step, its reason, its last lines, how to go on."""

import re
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pipelines.outcome import Failure
from plsc import storage
from plsc.conf.schema import PipelineConfig
from plsc.errors import StorageError
from plsc.progress import duration

__all__ = ["has_checkpoint", "last_lines", "print_failure"]

_NUM_LINES = 15
_LAUNCHER = r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ "
"""How the lines begin in which KFP's launcher tells about itself, on a cluster."""


def print_failure(
    console: Console, failure: Failure, *, seconds: float, log_path: Path, command: str
) -> None:
    """Print why a run failed.

    Args:
        console: Where to.
        failure: Why.
        seconds: What the run took.
        log_path: The full log of the failed step.
        command: What to type to go on; empty when there is nothing to go on from.
    """
    lines = last_lines(log_path)
    console.print()
    title = Text.assemble((f"{failure.step} failed", "bold red"), f" after {duration(seconds)}")
    console.print(title, soft_wrap=True)
    console.print(Text(failure.message), soft_wrap=True)
    if lines:
        console.print(Text(f"\nThe end of its log, {log_path}:", style="dim"), soft_wrap=True)
        for line in lines:
            console.print(Text(f"    {line}"), soft_wrap=True)
    if command:
        console.print(
            Text.assemble("\nGo on from its checkpoint:  ", (command, "bold")), soft_wrap=True
        )


def last_lines(log_path: Path) -> list[str]:
    """Return the last lines of a step's log, without those in which kfp tells about itself.

    When the step has said why it failed, the traceback of its orderly end is left out as well.
    """
    if not log_path.is_file():
        return []
    lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
    return list(_told(lines, log_path.stem))[-_NUM_LINES:]


def _told(lines: list[str], step: str) -> Iterator[str]:
    has_reason = is_dump = False
    for line in lines:
        if line.startswith(f"[{step}] "):
            has_reason = "Error: " in line or "GateFailed: " in line
        if has_reason and line.startswith("Traceback (most recent call last)"):
            return
        if re.match(_LAUNCHER, line):
            continue
        if line.startswith("[KFP Executor"):
            is_dump = line.endswith("Got executor_input:")
        elif not is_dump:
            yield line
        elif line == "}":
            is_dump = False


def has_checkpoint(config: PipelineConfig) -> bool:
    """Return whether training of this run can be gone on with."""
    prefix = storage.join(config.store_uri, "runs", config.run_id, "checkpoints") + "/"
    try:
        return any(info.uri.endswith("/index.json") for info in storage.list_objects(prefix))
    except StorageError:
        return False
