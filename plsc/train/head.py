"""The head: class centers cut over the ranks, and the margin softmax on top of them.

B local batch, G global batch (= B x world size), D embedding, C all classes, L classes of this
rank.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from plsc.conf.schema import HeadConfig, Loss
from plsc.train.loss import sharded_cross_entropy
from plsc.train.margin import apply_margin
from plsc.train.partition import partition_classes
from plsc.train.process_group import Ranks, gather_embeddings

__all__ = ["HeadOutput", "ShardedHead"]

_INIT_BLOCK = 4096


@dataclass(frozen=True)
class HeadOutput:
    """What one step of the head gives; the same on every rank."""

    loss: torch.Tensor
    """Scalar, mean over the valid samples of the global batch; differentiable."""
    correct_1: torch.Tensor
    """Scalar, fraction of valid samples whose own class comes first (before the margin)."""
    correct_5: torch.Tensor
    """Scalar, fraction whose own class is among the first five."""


class ShardedHead(nn.Module):
    """A classifier whose C class centers are cut over the ranks in contiguous blocks.

    The result on any number of ranks equals that of one process with all classes; so do the
    initial weights, which depend on the seed and the class id only.
    """

    def __init__(
        self, config: HeadConfig, *, num_classes: int, embedding_size: int, ranks: Ranks, seed: int
    ) -> None:
        super().__init__()
        self.config = config
        self.ranks = ranks
        self.num_classes = num_classes
        self.classes = partition_classes(num_classes, ranks.world_size, ranks.rank)
        self.weight = nn.Parameter(_initial_centers(self.classes, embedding_size, seed))
        self.bias: nn.Parameter | None = None
        if config.loss is Loss.softmax:
            self.bias = nn.Parameter(torch.zeros(len(self.classes)))

    def forward(
        self, embeddings_BD: torch.Tensor, labels_B: torch.Tensor, margin: float
    ) -> HeadOutput:
        """Return loss and accuracy of the global batch.

        Args:
            embeddings_BD: float32 [B, D], not normalized; B is the same on every rank.
            labels_B: int64 [B]; -1 is ignored, anything else must lie in 0..C-1.
            margin: The margin of this step (it may be warming up).

        Collectives: all-gathers of embeddings, labels, [3, G] and [G].
        """
        embeddings_GD = gather_embeddings(embeddings_BD, self.ranks)
        labels_G = self.ranks.gather(labels_B).flatten()
        is_valid_G = labels_G >= 0
        is_own_G = is_valid_G & (labels_G >= self.classes.start) & (labels_G < self.classes.stop)
        rows = is_own_G.nonzero().flatten()
        columns = labels_G[rows] - self.classes.start

        plain_GL = self._logits(embeddings_GD)
        with torch.no_grad():
            correct_1, correct_5 = self._accuracy(plain_GL, rows, columns, is_valid_G)
        logits_GL = plain_GL
        if self.config.loss is not Loss.softmax:
            targets = apply_margin(self.config.loss, plain_GL[rows, columns], margin)
            logits_GL = plain_GL.index_put((rows, columns), targets) * self.config.scale
        loss = sharded_cross_entropy(logits_GL, rows, columns, is_valid_G, self.ranks)
        return HeadOutput(loss, correct_1, correct_5)

    def _logits(self, embeddings_GD: torch.Tensor) -> torch.Tensor:
        """Return cosines (or, for plain softmax, affine logits) with this rank's classes."""
        if self.config.loss is Loss.softmax:
            return functional.linear(embeddings_GD, self.weight, self.bias)
        return functional.linear(
            functional.normalize(embeddings_GD), functional.normalize(self.weight)
        )

    def _accuracy(
        self,
        plain_GL: torch.Tensor,
        rows: torch.Tensor,
        columns: torch.Tensor,
        is_valid_G: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Count, over all ranks, the classes that come before the sample's own."""
        target = plain_GL.new_zeros(plain_GL.shape[0])
        target[rows] = plain_GL[rows, columns]
        target = self.ranks.gather(target).sum(dim=0)
        before = (plain_GL > target[:, None]).sum(dim=1)
        before = self.ranks.gather(before).sum(dim=0)
        num_valid = is_valid_G.sum().clamp_min(1)
        return (
            ((before < 1) & is_valid_G).sum() / num_valid,
            ((before < 5) & is_valid_G).sum() / num_valid,
        )


def _initial_centers(classes: range, embedding_size: int, seed: int) -> torch.Tensor:
    """Return normal centers of expected length 1 for ``classes``, drawn per block of class ids."""
    centers = torch.empty(len(classes), embedding_size)
    if not classes:
        return centers
    for block in range(classes.start // _INIT_BLOCK, (classes.stop - 1) // _INIT_BLOCK + 1):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + block) % 2**63)
        drawn = torch.randn(_INIT_BLOCK, embedding_size, generator=generator)
        first = max(classes.start, block * _INIT_BLOCK)
        last = min(classes.stop, (block + 1) * _INIT_BLOCK)
        centers[first - classes.start : last - classes.start] = drawn[
            first - block * _INIT_BLOCK : last - block * _INIT_BLOCK
        ]
    return centers / math.sqrt(embedding_size)
