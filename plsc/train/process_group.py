"""The ranks: joining and leaving the process group, and the collectives of training.

Under torchrun every process joins; without it, training is one rank and needs no group.
"""

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from plsc.errors import TrainError

__all__ = ["Ranks", "gather_embeddings", "joined"]

_TIMEOUT = dt.timedelta(minutes=30)
_T = TypeVar("_T")


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


@contextmanager
def joined(threads: int) -> Iterator[Ranks]:
    """Join the ranks that torchrun started (or be the only one), and leave them at the end.

    Nested use is fine: the outermost one joins and leaves.

    Args:
        threads: CPU threads of this rank; 0 divides the machine's cores among its ranks.

    Raises:
        TrainError: If another rank went away in the block.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // local_size))
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
    try:
        yield Ranks(dist.get_rank(), world_size, device)
    except RuntimeError as error:
        if "gloo" in str(error) or isinstance(error, dist.DistError):
            raise TrainError("lost contact with another rank: see how that one ended") from error
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
