"""The reference: Partial FC the way it is commonly implemented, with every matrix written out.

What An et al., "Partial FC" (arXiv 2010.05222) compute, in the manner of the widely used
``partial_fc_v2.py`` of InsightFace (arcface_torch), restated by us from a description of what that
file allocates and sends, so that our head is measured against an algorithm and not against a
framework: a normalized copy of all the weights; cosines of all classes, clamped into a second
matrix; arccos and cos of all of them for the sake of one per row; scaled logits in a third; three
all-reduces; a one-hot matrix in the backward pass; the loss's gradient taken to the host; a dense
gradient of the weights, also when classes are sampled; and torch's SGD over all rows. The margin's
derivative is taken as 1 (our ``ste``).

Where ranks are alone the collectives are left out, which favors the reference. Its loss is capped
(a probability below 1e-30 counts as that), as there; its gradient is not.

B local batch, G global batch, D embedding, L classes of this rank, S those that take part.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from plsc.train.process_group import Ranks

__all__ = ["MaterializedHead"]

_SMALLEST_PROBABILITY = 1e-30


class MaterializedHead(nn.Module):
    """Class centers of one rank and the ArcFace loss over those of all ranks."""

    def __init__(
        self,
        weight_LD: torch.Tensor,
        *,
        classes: range,
        ranks: Ranks,
        margin: float,
        scale: float,
        sample_rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_LD)
        self.classes = classes
        self.ranks = ranks
        self.margin = margin
        self.scale = scale
        self.num_sampled = int(sample_rate * len(classes))

    def forward(self, embeddings_BD: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of the global batch, a differentiable scalar.

        Args:
            embeddings_BD: float32 [B, D], not normalized.
            labels_B: int64 [B], 0..C-1.

        Collectives: two all-gathers and three all-reduces, and backward a reduce for each rank.
        """
        embeddings_GD: torch.Tensor = _GatherRows.apply(embeddings_BD, self.ranks)
        labels_G = self.ranks.gather(labels_B).flatten()
        is_own_G = (self.classes.start <= labels_G) & (labels_G < self.classes.stop)
        columns_G = torch.where(is_own_G, labels_G - self.classes.start, -1)
        weight_SD: torch.Tensor = self.weight
        if self.num_sampled < len(self.classes):
            weight_SD, columns_G = self._sampled(is_own_G, columns_G)
        cosines_GS = functional.linear(
            functional.normalize(embeddings_GD), functional.normalize(weight_SD)
        ).clamp(-1, 1)
        logits_GS = self._with_margin(cosines_GS, columns_G) * self.scale
        loss: torch.Tensor = _ShardedLoss.apply(logits_GS, columns_G, self.ranks)
        return loss

    def _sampled(
        self, is_own_G: torch.Tensor, columns_G: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the classes that take part; those of the batch always do."""
        positives = columns_G[is_own_G].unique()
        chance = torch.rand(len(self.classes), device=columns_G.device)
        chance[positives] = 2.0
        size = max(self.num_sampled, len(positives))
        taking_part = chance.topk(size).indices.sort().values
        columns_G = torch.where(is_own_G, torch.searchsorted(taking_part, columns_G), -1)
        return self.weight[taking_part], columns_G

    def _with_margin(self, cosines_GS: torch.Tensor, columns_G: torch.Tensor) -> torch.Tensor:
        """Add the margin to the targets' angles, in place and unseen by autograd."""
        rows = (columns_G != -1).nonzero().flatten()
        with torch.no_grad():
            angles_GS = cosines_GS.arccos_()
            angles_GS[rows, columns_G[rows]] += self.margin
            angles_GS.cos_()
        return cosines_GS


class _GatherRows(torch.autograd.Function):
    """All-gather forward; backward one reduce for each rank, scaled as for averaged gradients."""

    @staticmethod
    def forward(ctx: Any, embeddings_BD: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks = ranks
        if ranks.world_size == 1:
            return embeddings_BD
        parts = [torch.zeros_like(embeddings_BD) for _ in range(ranks.world_size)]
        dist.all_gather(parts, embeddings_BD)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient_GD,) = gradients
        ranks: Ranks = ctx.ranks
        if ranks.world_size == 1:
            return gradient_GD, None
        parts = [part.contiguous() for part in gradient_GD.chunk(ranks.world_size)]
        for rank, part in enumerate(parts):
            dist.reduce(part, dst=rank)
        return parts[ranks.rank] * ranks.world_size, None


class _ShardedLoss(torch.autograd.Function):
    """Cross-entropy over classes that are cut over the ranks; its logits become probabilities."""

    @staticmethod
    def forward(
        ctx: Any, logits_GS: torch.Tensor, columns_G: torch.Tensor, ranks: Ranks
    ) -> torch.Tensor:
        largest_G1 = logits_GS.amax(dim=1, keepdim=True)
        _all_reduce(largest_G1, ranks, dist.ReduceOp.MAX)
        exponentials_GS = logits_GS.sub_(largest_G1).exp_()
        sum_G1 = exponentials_GS.sum(dim=1, keepdim=True)
        _all_reduce(sum_G1, ranks, dist.ReduceOp.SUM)
        probabilities_GS = exponentials_GS.div_(sum_G1)

        rows = (columns_G != -1).nonzero().flatten()
        target_G = probabilities_GS.new_zeros(len(columns_G))
        target_G[rows] = probabilities_GS[rows, columns_G[rows]]
        _all_reduce(target_G, ranks, dist.ReduceOp.SUM)
        ctx.save_for_backward(probabilities_GS, rows, columns_G[rows])
        return -target_G.clamp_min(_SMALLEST_PROBABILITY).log().mean()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = gradients
        gradient_GS, rows, columns = ctx.saved_tensors
        one_hot = gradient_GS.new_zeros(len(rows), gradient_GS.shape[1])
        one_hot.scatter_(1, columns[:, None], 1)
        gradient_GS[rows] -= one_hot
        gradient_GS.div_(gradient_GS.shape[0])
        return gradient_GS * gradient.item(), None, None


def _all_reduce(tensor: torch.Tensor, ranks: Ranks, operation: Any) -> None:
    if ranks.world_size > 1:
        dist.all_reduce(tensor, operation)
