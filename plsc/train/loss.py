"""Softmax cross-entropy over a class axis that is cut over the ranks.

No rank ever sees the logits of another: each sums its own, and one all-gather of three numbers
per sample (maximum, sum of exponentials, target logit) gives every rank the same loss.
G global batch, L classes of this rank.
"""

from typing import Any

import torch

from plsc.train.process_group import Ranks

__all__ = ["sharded_cross_entropy"]


class _ShardedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  autograd passes by position
        ctx: Any,
        logits_GL: torch.Tensor,
        rows: torch.Tensor,
        columns: torch.Tensor,
        is_valid_G: torch.Tensor,
        ranks: Ranks,
    ) -> torch.Tensor:
        count = logits_GL.shape[0]
        largest = logits_GL.new_full((count,), -torch.inf)
        total = logits_GL.new_zeros(count)
        if logits_GL.shape[1]:
            largest = logits_GL.amax(dim=1)
            total = (logits_GL - largest[:, None]).exp_().sum(dim=1)
        target = logits_GL.new_zeros(count)
        target[rows] = logits_GL[rows, columns]

        all_R3G = ranks.gather(torch.stack([largest, total, target]))
        maximum = all_R3G[:, 0].amax(dim=0)
        sums = (all_R3G[:, 1] * (all_R3G[:, 0] - maximum).exp()).sum(dim=0)
        log_sum_G = maximum + sums.log()
        num_valid = is_valid_G.sum().clamp_min(1)
        losses_G = torch.where(is_valid_G, log_sum_G - all_R3G[:, 2].sum(dim=0), 0.0)

        ctx.save_for_backward(logits_GL, rows, columns, is_valid_G, log_sum_G, num_valid)
        return losses_G.sum() / num_valid

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        logits_GL, rows, columns, is_valid_G, log_sum_G, num_valid = ctx.saved_tensors
        weight_G = is_valid_G * (gradient / num_valid)
        gradient_GL = (logits_GL - log_sum_G[:, None]).exp_().mul_(weight_G[:, None])
        gradient_GL[rows, columns] -= weight_G[rows]
        return gradient_GL, None, None, None, None


def sharded_cross_entropy(
    logits_GL: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    is_valid_G: torch.Tensor,
    ranks: Ranks,
) -> torch.Tensor:
    """Return the mean cross-entropy over the valid samples of the global batch, a scalar.

    Every rank returns the same value; the gradient reaches this rank's logits.

    Args:
        logits_GL: float [G, L], this rank's logits of all samples; L may be 0.
        rows: int64 [n], the samples whose class lives on this rank.
        columns: int64 [n], where among this rank's classes.
        is_valid_G: bool [G]; False samples (label -1) count for nothing.
        ranks: The ranks.

    Collective: one all-gather of [3, G].
    """
    loss: torch.Tensor = _ShardedCrossEntropy.apply(logits_GL, rows, columns, is_valid_G, ranks)
    return loss
