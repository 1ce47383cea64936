"""Ranks on this machine: torchrun in a child process, its output passed on."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from plsc import doorway, storage
from plsc.conf.schema import PipelineConfig
from plsc.errors import TrainError
from plsc.train.backends.protocol import RankKilledError
from plsc.train.backends.ranks import ENVIRONMENT, show

__all__ = ["Torchrun"]

_LAST_LINES = 200


class Torchrun:
    """Starts all ranks on this machine."""

    def train(self, config: PipelineConfig, arguments: Sequence[str]) -> None:
        """Train on ``train.ranks`` processes of this machine; see ``Backend``.

        When one rank dies the others are stopped within seconds. A SIGTERM to this process is
        handed on, and the ranks' end awaited, so that none outlives it.

        Raises:
            RankKilledError: If a rank was killed; names it.
            TrainError: If a rank failed otherwise; names it and how it ended.
            SystemExit: If a signal asked this process to end.
        """
        storage.delete(doorway.failure_uri(config, "train"))
        command = [
            *(sys.executable, "-m", "torch.distributed.run"),
            *("--standalone", "--max-restarts=0", f"--nproc-per-node={config.train.ranks}"),
            *("-m", "plsc.train", *arguments),
        ]
        last: deque[str] = deque(maxlen=_LAST_LINES)
        with (
            subprocess.Popen(
                command,
                env=ENVIRONMENT | os.environ,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            ) as process,
            _signals_handed_on(process),
        ):
            assert process.stdout is not None
            for line in process.stdout:
                last.append(line.rstrip())
                show(line.rstrip())
            process.wait()
        if process.returncode:
            raise _what_happened(last, config.train.ranks, process.returncode)


@contextmanager
def _signals_handed_on(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Hand SIGTERM and SIGINT on to ``process``; behind the block end with the first there was."""
    if threading.current_thread() is not threading.main_thread():
        yield  # the caller's handlers hold
        return
    received: list[int] = []

    def hand_on(number: int, _: FrameType | None) -> None:
        if not received:  # torchrun counts: the next one would break into its way of stopping
            with suppress(ProcessLookupError):
                process.send_signal(number)
        received.append(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
        if received:
            sys.exit(128 + received[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    if status == 128 + signal.SIGTERM:
        return TrainError("the ranks were stopped by a SIGTERM that did not come from here")
    return TrainError(f"{who} ended with code {status} (pid {pid}); the other ranks were stopped")
