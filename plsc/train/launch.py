"""Starting the ranks on this machine: torchrun in a child process, its output passed on."""

import logging
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

from plsc.doorway import LAUNCHED
from plsc.errors import TrainError

__all__ = ["RankKilledError", "torchrun"]

log = logging.getLogger(__name__)

_LAST_LINES = 200


class RankKilledError(TrainError):
    """A signal ended a rank: what the others then said about it is only a consequence."""


def torchrun(module: str, arguments: Sequence[str], *, ranks: int) -> None:
    """Run ``python -m module arguments`` on ``ranks`` processes of this machine to their end.

    When one rank dies the others are stopped within seconds. A SIGTERM to this process is handed
    on, so that no rank outlives it.

    Raises:
        RankKilledError: If a rank was killed; names it.
        TrainError: If a rank failed otherwise; names it and how it ended.
    """
    command = [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--standalone", "--max-restarts=0", f"--nproc-per-node={ranks}"),
        *("-m", module, *arguments),
    ]
    environment = {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR", LAUNCHED: "1"}
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        command,
        env=environment | os.environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        _hand_on_signals(process)
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line.rstrip())
            _show(line.rstrip())
    if process.returncode:
        raise _what_happened(last, ranks, process.returncode)


def _show(line: str) -> None:
    """Pass on what a rank says; keep what torchrun says about itself to the debug level."""
    if line.startswith("[train]"):
        log.info("%s", line.removeprefix("[train]").strip())
    else:
        log.debug("%s", line)


def _hand_on_signals(process: "subprocess.Popen[str]") -> None:
    def hand_on(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            process.send_signal(number)
        process.wait()
        sys.exit(128 + number)

    set_handler: Callable[[int, Callable[[int, FrameType | None], None]], object] = signal.signal
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(ValueError):  # only the main thread may; elsewhere the caller's handlers hold
            set_handler(number, hand_on)


def _what_happened(last: Sequence[str], ranks: int, code: int) -> TrainError:
    """Read torchrun's report for the rank that began it.

    A rank that was killed comes before those that missed it (they end with a code), these before
    those that torchrun stopped (by SIGTERM).
    """
    report = "\n".join(last)
    pattern = r"^\s*rank\s*:\s*(\d+).*\n\s*exitcode\s*:\s*(-?\d+) \(pid: (\d+)\)"
    failures = [(int(s), int(r), int(p)) for r, s, p in re.findall(pattern, report, re.MULTILINE)]
    if not failures:
        tail = "\n".join(list(last)[-15:])
        return TrainError(f"torchrun ended with code {code} and named no rank; it said:\n{tail}")
    status, rank, pid = min(failures, key=lambda f: (f[0] == -signal.SIGTERM, f[0] > 0))
    who = f"rank {rank} of {ranks}"
    if status < 0:
        how = f"was killed by {signal.Signals(-status).name} (pid {pid})"
        return RankKilledError(f"{who} {how}; the other ranks were stopped")
    return TrainError(f"{who} ended with code {status} (pid {pid}); the other ranks were stopped")
