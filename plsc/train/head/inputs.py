"""What the head refuses, before it changes anything.

On the CPU a wrong value raises a TrainError, on every rank and with the same words. On a GPU
nobody waits for the answer: the device itself stops (``torch._assert_async``) before the update.
"""

import torch

from plsc.errors import TrainError

__all__ = ["check_embeddings", "check_labels"]


def check_labels(
    labels_G: torch.Tensor, num_classes: int, step: int, batch_size: int, first_rank: int
) -> None:
    """Check that labels, int64 [G], lie in -1 .. num_classes - 1.

    Args:
        labels_G: ``batch_size`` of each rank, from ``first_rank`` on.
        num_classes: C.
        step: Steps done before.
        batch_size: B.
        first_rank: Whose labels come first.

    Raises:
        TrainError: Names the first rank with a wrong one.
    """
    is_wrong_G = (labels_G < -1) | (labels_G >= num_classes)
    if labels_G.is_cuda:
        torch._assert_async(~is_wrong_G.any(), f"step {step + 1}: a label is no class")  # noqa: SLF001
    elif is_wrong_G.any():
        place = int(is_wrong_G.nonzero()[0])
        raise TrainError(
            f"step {step + 1}: rank {first_rank + place // batch_size} has label"
            f" {labels_G[place]}, expected 0..{num_classes - 1} (or -1, which is ignored): nothing"
            " was updated by this step; count the classes of the data set again"
        )


def check_embeddings(x_GD: torch.Tensor, step: int, batch_size: int, first_rank: int) -> None:
    """Check that the embeddings [G, D] are finite; arguments as in ``check_labels``.

    Raises:
        TrainError: Names the first rank with others.
    """
    is_finite_G = x_GD.isfinite().all(dim=1)
    if x_GD.is_cuda:
        torch._assert_async(is_finite_G.all(), f"step {step + 1}: an embedding is not finite")  # noqa: SLF001
    elif not is_finite_G.all():
        rank = int((~is_finite_G).nonzero()[0]) // batch_size
        count = int((~is_finite_G)[rank * batch_size : (rank + 1) * batch_size].sum())
        raise TrainError(
            f"step {step + 1}: {count} of the {batch_size} embeddings on rank {first_rank + rank}"
            " are not finite; nothing was updated by this step: lower train.optimizer.lr or raise"
            " train.schedule.warmup_epochs, and resume from the last checkpoint"
        )
