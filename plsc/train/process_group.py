"""The ranks: joining and leaving the process group, and the collectives of training.

Under torchrun every process joins; without it, training is one rank and needs no group.
"""

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from plsc.errors import TrainError
from plsc.processors import usable_processors
from plsc.train.heartbeat import beating

__all__ = ["LostContactError", "Ranks", "Vote", "gather_embeddings", "joined"]

_TIMEOUT = dt.timedelta(minutes=30)
_T = TypeVar("_T")


class LostContactError(TrainError):
    """Another rank went away: how that one ended is what matters."""


@dataclass(frozen=True)
class Ranks:
    """This rank among all of them."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which speaks for all."""
        return self.rank == 0

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensors of all ranks (same shape everywhere) stacked along dim 0, [R, ...].

        Collective: one all-gather.
        """
        if self.world_size == 1:
            return tensor.unsqueeze(0)
        gathered = tensor.new_empty(self.world_size, *tensor.shape)
        dist.all_gather_into_tensor(gathered.view(-1), tensor.contiguous().view(-1))
        return gathered

    def gather_objects(self, item: _T) -> list[_T]:
        """Return one small picklable object of every rank, in rank order. Collective."""
        if self.world_size == 1:
            return [item]
        items: list[Any] = [None] * self.world_size
        dist.all_gather_object(items, item)
        return items

    def sum_(self, tensor: torch.Tensor) -> None:
        """Overwrite ``tensor`` with the sum over all ranks. Collective: one all-reduce."""
        if self.world_size > 1:
            dist.all_reduce(tensor)

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Overwrite ``tensor`` with that of rank 0. Collective."""
        if self.world_size > 1:
            dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Return when every rank has come here. Collective."""
        if self.world_size > 1:
            dist.barrier()


class Vote:
    """The largest number that any rank gave, asked with every step and read with the next one.

    By then the ranks have exchanged embeddings and gradients, so the answer is there: nobody waits.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._group: dist.ProcessGroup | None = None
        self._asked: tuple[dist.Work, torch.Tensor] | None = None

    def open(self) -> None:
        """Make the process group of the votes, on the CPU. Collective."""
        if self._ranks.world_size > 1:
            group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
            self._group = cast("dist.ProcessGroup", group)

    def cast(self, number: int) -> int:
        """Give this rank's number and return the largest of those given the time before.

        Collective: waits for the all-reduce of the time before, and starts another in the
        background.

        Returns:
            0 the first time; alone, the number itself.
        """
        if self._ranks.world_size == 1:
            return number
        largest = 0
        if self._asked:
            work, answer = self._asked
            work.wait()
            largest = int(answer)
        given = torch.tensor(number, dtype=torch.int32)
        work = dist.all_reduce(given, dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._asked = (work, given)
        return largest


@contextmanager
def joined(threads: int) -> Iterator[Ranks]:
    """Join the ranks that torchrun started (or be the only one), and leave them at the end.

    Nested use is fine: the outermost one joins and leaves.

    Args:
        threads: CPU threads of this rank; 0 divides the machine's cores among its ranks.

    Raises:
        LostContactError: If another rank went away in the block.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, usable_processors() // local_size))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world_size == 1:
        yield Ranks(0, 1, device)
        return
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), world_size, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    with beating(dist.get_rank(), world_size):  # until the group is gone, which may wait for others
        try:
            yield Ranks(dist.get_rank(), world_size, device)
        except RuntimeError as error:
            if "gloo" in str(error) or isinstance(error, dist.DistError):
                message = "lost contact with another rank: see how that one ended"
                raise LostContactError(message) from error
            raise
        finally:
            dist.destroy_process_group()


class _GatherEmbeddings(torch.autograd.Function):
    """All-gather forward; backward sums over the ranks and keeps this rank's rows."""

    @staticmethod
    def forward(ctx: Any, embeddings_BD: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks = ranks
        return ranks.gather(embeddings_BD).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient_GD,) = gradients
        ranks: Ranks = ctx.ranks
        size = gradient_GD.shape[0] // ranks.world_size
        gradient_BD = gradient_GD.new_empty(size, gradient_GD.shape[1])
        dist.reduce_scatter_tensor(gradient_BD, gradient_GD.contiguous())
        return gradient_BD * ranks.world_size, None


def gather_embeddings(embeddings_BD: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Return the embeddings of all ranks, [G, D], G = B x world_size, differentiably.

    The gradient that comes back is multiplied by the world size: the head's loss is the mean over
    the *global* batch, and DistributedDataParallel will divide the backbone's gradients by it.

    Collective: one all-gather forward; one reduce-scatter backward.
    """
    if ranks.world_size == 1:
        return embeddings_BD
    gathered: torch.Tensor = _GatherEmbeddings.apply(embeddings_BD, ranks)
    return gathered
