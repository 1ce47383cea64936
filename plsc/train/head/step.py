"""What goes into a step of the head, and what comes out."""

from dataclasses import dataclass

import torch

from plsc.train.head.margin import Margin

__all__ = ["HeadOutput", "HeadStep"]


@dataclass(frozen=True)
class HeadStep:
    """What the head must know of a step; the same on every rank."""

    step: int
    """Steps done before: keys sampling and stochastic rounding, and is named in errors."""
    lr: float
    """Learning rate of the class centers."""
    margin: Margin
    """The margin (it may be warming up)."""
    count_correct: bool = False
    """Whether to measure accuracy; costs two small collectives."""
    num_valid: int | None = None
    """What to divide the summed loss by; None: the valid samples of this call. With micro-batches:
    the samples of the whole step."""
    step_labels_B: torch.Tensor | None = None
    """With sampling and micro-batches: the labels of all micro-batches of the step."""


@dataclass(frozen=True)
class HeadOutput:
    """What one step of the head gives; the same on every rank."""

    loss: torch.Tensor
    """Scalar, mean over the valid samples of the global batch; differentiable."""
    correct_1: torch.Tensor | None = None
    """Scalar, fraction of valid samples whose own class comes first (before the margin)."""
    correct_5: torch.Tensor | None = None
    """Scalar, fraction whose own class is among the first five."""
