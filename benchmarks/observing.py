"""Running a command as a child process while its memory and disk use are watched from outside."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Observed", "observe"]

_EVERY_S = 0.05
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Observed:
    """What a command printed and needed."""

    said: dict[str, Any]
    """Its last line, which is JSON."""
    process_seconds: float
    """Wall seconds from its start to its end, the interpreter and all imports included."""
    first_peak_bytes: int
    """Peak resident memory of the process itself."""
    child_peak_bytes: int
    """That of the largest process that it started; 0 if it started none."""
    total_peak_bytes: int
    """The most that all of them held at one time; pages that they share count for each."""
    disk_peak_bytes: int
    """The most by which the disk's free space shrank meanwhile."""


def observe(module: str, arguments: list[str], *, folder: Path) -> Observed:
    """Run ``python -m module arguments`` to its end.

    Peaks are the kernel's own high-water marks (``VmHWM``), looked at 20 times a second: a process
    that grows in its last moments may be told too small by what it grew.

    Args:
        module: Importable from the repository's root.
        arguments: Its command line.
        folder: A folder on the disk to watch.

    Raises:
        RuntimeError: If it fails, or prints no JSON.
    """
    command = [sys.executable, "-m", module, *arguments]
    free = shutil.disk_usage(folder).free
    peaks: dict[int, int] = {}
    total_peak = disk_peak = 0
    begin = time.perf_counter()
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            while process.poll() is None:
                total_peak = max(total_peak, _look(process.pid, peaks))
                disk_peak = max(disk_peak, free - shutil.disk_usage(folder).free)
                time.sleep(_EVERY_S)
            seconds = time.perf_counter() - begin
            output = process.communicate()[0]
        finally:
            process.kill()
    lines = output.splitlines()
    if process.returncode or not lines:
        raise RuntimeError(
            f"{' '.join(command)} ended with exit code {process.returncode}: see what it printed"
        )
    first = peaks.pop(process.pid, 0)
    return Observed(
        said=json.loads(lines[-1]),
        process_seconds=seconds,
        first_peak_bytes=first,
        child_peak_bytes=max(peaks.values(), default=0),
        total_peak_bytes=total_peak,
        disk_peak_bytes=disk_peak,
    )


def _look(pid: int, peaks: dict[int, int]) -> int:
    """Note the peak of the process and of all below it; return what they hold now, in bytes."""
    try:
        family = psutil.Process(pid)
        pids = [pid, *(child.pid for child in family.children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0
    held = 0
    for member in pids:
        try:
            status = Path(f"/proc/{member}/status").read_text(encoding="ascii", errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if "VmHWM" in values:
            peaks[member] = _bytes(
                values["VmHWM"]
            )  # not the larger: before exec it is the parent's
            held += _bytes(values["VmRSS"])
    return held


def _bytes(value: str) -> int:
    """Return ``  123 kB`` as bytes."""
    return int(value.split(maxsplit=1)[0]) * 1024
