"""Running a function on several gloo ranks, each a process, and getting what they return."""

import pickle
import socket
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from plsc.train.process_group import Ranks


def on_ranks(
    world_size: int, function: Callable[..., Any], cases: Sequence[tuple[Any, ...]]
) -> list[list[Any]]:
    """Return, for each case, what ``function(ranks, *case)`` returned on every rank."""
    if world_size == 1:
        alone = Ranks(0, 1, torch.device("cpu"))
        return [[function(alone, *case)] for case in cases]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("forkserver")  # torch is imported once, not once a rank
    context.set_forkserver_preload(["torch", "plsc.train.head", "plsc.train.checkpoints"])
    queue = context.SimpleQueue()
    processes = [
        context.Process(target=_rank, args=(rank, world_size, port, function, cases, queue))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    results = dict(pickle.loads(queue.get()) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [[results[rank][n] for rank in range(world_size)] for n in range(len(cases))]


def _rank(rank, world_size, port, function, cases, queue) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
    )
    ranks = Ranks(rank, world_size, torch.device("cpu"))
    try:
        # As bytes: tensors in a queue live in memory of the process that put them, which ends.
        queue.put(pickle.dumps((rank, [function(ranks, *case) for case in cases])))
        dist.barrier()
    finally:
        dist.destroy_process_group()
