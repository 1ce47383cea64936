"""Gradient checkpointing: activations computed again in the backward pass instead of being kept.

"Training deep nets with sublinear memory cost" (arXiv 1604.06174): of each block only its input is
kept; the price is a second forward pass through the blocks, about a third of a step's arithmetic.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from plsc.errors import ConfigError

__all__ = ["checkpoint_gradients"]


def checkpoint_gradients(backbone: nn.Module) -> None:
    """Let ``backbone`` keep only the inputs of its blocks for the backward pass.

    The blocks are the members of its attribute ``stages``, an ``nn.Sequential``: each is computed
    again, on its own, when the backward pass reaches it. Loss, gradients and buffers (batch norm's
    running statistics) stay what they were, dropout and autocast included, and so do the keys of
    the state dict. Changes ``backbone``; wrap it in DistributedDataParallel afterwards.

    Raises:
        ConfigError: If ``backbone`` has no such ``stages``.
    """
    stages = getattr(backbone, "stages", None)
    if type(stages) is not nn.Sequential:
        found = "none" if stages is None else f"a {type(stages).__name__}"
        raise ConfigError(
            "train.gradient_checkpointing=true expects the backbone to have an attribute stages,"
            f" an nn.Sequential of the blocks to compute again; {type(backbone).__name__} has"
            f" {found}: gather its blocks there, or set train.gradient_checkpointing=false"
        )
    backbone.stages = _Recomputed(*stages)


class _Recomputed(nn.Sequential):
    """The same members under the same names, each computed again in the backward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            y: torch.Tensor = super().forward(x)
            return y
        for block in self:
            if torch.compiler.is_compiling():  # traced once, so that buffers are written once too
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = checkpoint(block, x, use_reentrant=False, context_fn=partial(_contexts, block))
        return x


def _contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the first and of the second computation of ``block``."""
    return nullcontext(), _buffers_set_aside(block)


@contextmanager
def _buffers_set_aside(block: nn.Module) -> Iterator[None]:
    """Give ``block`` copies of its buffers meanwhile.

    A second forward pass would enter the same batch into running statistics a second time.
    """
    buffers = [
        (module, name, buffer)
        for module in block.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    for module, name, buffer in buffers:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
