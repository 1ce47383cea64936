"""Running a function on one or more ranks, each a fresh process that cannot outlive its parent."""

import multiprocessing as mp
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from plsc.train.process_group import Ranks

__all__ = ["RankFailedError", "num_cores", "on_ranks"]

_GRACE_S = 5.0
_T = TypeVar("_T")


class RankFailedError(RuntimeError):
    """A rank raised, or ended without a result."""

    def __init__(self, message: str, exitcode: int) -> None:
        super().__init__(message)
        self.exitcode = exitcode


def num_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def on_ranks(
    world_size: int, threads: int, function: Callable[..., _T], *arguments: Any
) -> list[_T]:
    """Return what ``function(ranks, *arguments)`` returned on every rank, in rank order.

    Ranks are new processes, so that what one call leaves in memory does not count against the
    next; they are forked from a server that does nothing but import torch once. When one fails the
    others are ended; when this process dies, all die with it.

    Args:
        world_size: Number of ranks, >= 1. More than one talk over gloo on the loopback device
            (NCCL where there are GPUs).
        threads: CPU threads of each rank; 0 divides the cores among them.
        function: Importable by name; its result is picklable.
        *arguments: Picklable.

    Raises:
        RankFailedError: If a rank did not come to its end.
    """
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.measuring"])
    threads = threads or max(1, num_cores() // world_size)
    with tempfile.TemporaryDirectory(prefix="plsc-ranks-") as folder:
        place = (world_size, threads, Path(folder, "meeting").as_uri())
        ends: dict[Connection, tuple[int, ForkServerProcess]] = {}
        try:
            for rank in range(world_size):
                receiver, sender = context.Pipe(duplex=False)
                given = (sender, rank, *place, function, arguments)
                process = context.Process(target=_rank, args=given, daemon=True)
                process.start()
                sender.close()
                ends[receiver] = rank, process
            return _collect(ends)
        finally:
            _end([process for _, process in ends.values()])


def _collect(ends: dict[Connection, tuple[int, ForkServerProcess]]) -> list[Any]:
    """Wait for one result of each rank, or for the first failure."""
    results: dict[int, Any] = {}
    while len(results) < len(ends):
        for receiver in wait([end for end, (rank, _) in ends.items() if rank not in results]):
            assert isinstance(receiver, Connection)
            rank, process = ends[receiver]
            try:
                problem, result = receiver.recv()
            except EOFError:
                process.join()
                problem, result = f"it ended with exit code {process.exitcode}", None
            if problem:
                raise RankFailedError(f"rank {rank} failed: {problem}", process.exitcode or 0)
            results[rank] = result
    return [results[rank] for rank in range(len(ends))]


def _end(processes: list[ForkServerProcess]) -> None:
    """Let processes that are done leave by themselves, and end the others."""
    deadline = time.monotonic() + _GRACE_S
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


def _die_with_parent() -> None:
    parent = mp.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _rank(  # noqa: PLR0917  Process passes by position
    sender: Connection,
    rank: int,
    world_size: int,
    threads: int,
    meeting: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """Be one rank: join the others, call, send the result (or what went wrong)."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    try:
        if world_size > 1:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=world_size)
        result = function(Ranks(rank, world_size, device), *arguments)
        sender.send(("", result))
    except Exception:  # noqa: BLE001  it is told to the parent, whole
        sender.send((traceback.format_exc(), None))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
