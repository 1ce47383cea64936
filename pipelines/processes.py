"""Ending processes together with everything that they have started."""

import contextlib
import os
import signal
import subprocess

import psutil

__all__ = ["end_children", "end_session"]


def end_children(*, patience_s: float) -> list[psutil.Process]:
    """End all descendants of this process, and return those that there were.

    Each gets SIGTERM, and SIGKILL when it is still there after ``patience_s``.
    """
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    _kill_after(children, patience_s)
    return children


def end_session(leader: "subprocess.Popen[bytes]", *, patience_s: float) -> None:
    """End a child that leads a session of its own, its process group, and all its descendants.

    Descendants in sessions of their own (torchrun's ranks) are found by their ancestry.
    """
    family = _family(leader.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
    _kill_after(family, patience_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kill_after(processes: list[psutil.Process], patience_s: float) -> None:
    _, left = psutil.wait_procs(processes, timeout=patience_s)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)
