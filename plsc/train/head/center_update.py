"""What the backward pass does with the class centers: ``fused``, ``deferred`` or ``plain``."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from plsc.conf.schema import HeadUpdate
from plsc.train.head.stored import Noise
from plsc.train.head.streaming import ClassRows, Follow, LogitsCache, Samples, StreamedClasses
from plsc.train.head.update import PlainGradient, RowOptimizer, SquaredNorm
from plsc.train.process_group import Ranks

__all__ = ["CenterUpdate", "StreamedLoss", "Sweep"]


@dataclass
class Sweep:
    """A forward pass that waits for its backward pass."""

    rows: ClassRows
    samples: Samples
    cache: LogitsCache
    is_valid_G: torch.Tensor
    num_valid: torch.Tensor | int
    step: int
    lr: float
    version: int


class CenterUpdate:
    """Sweeps backward, and lets class centers and biases follow their gradient when it is time."""

    def __init__(
        self,
        update: HeadUpdate,
        classes: StreamedClasses,
        parameters: list[nn.Parameter],
        optimizers: list[RowOptimizer],
        *,
        ranks: Ranks,
        seed: int,
        embedding_gradient_scale: int,
    ) -> None:
        """Take the weight, and the bias if there is one, with an optimizer each."""
        self.version = 0
        """How often the class centers have changed."""
        self.pending: list[Sweep] = []
        """``deferred``: backward passes whose gradient was not applied yet."""
        self._update = update
        self._classes = classes
        self._parameters = parameters
        self._optimizers = optimizers
        self._ranks = ranks
        self._seed = seed
        self._noise = Noise(ranks.device)
        self._embedding_gradient_scale = embedding_gradient_scale

    def backward(self, sweep: Sweep, upstream: torch.Tensor) -> torch.Tensor:
        """Return dL/dx of this rank's classes, [G, D]; update the centers if they are ``fused``."""
        if sweep.version != self.version:
            raise RuntimeError(
                "the class centers changed between this forward and its backward pass: with"
                " train.head.update=fused each forward is followed by its own backward; use"
                " deferred for several of them"
            )
        samples = sweep.samples
        samples.weight_G = sweep.is_valid_G * (upstream / sweep.num_valid)
        dx_GD = torch.zeros_like(samples.x_GD)
        follow = None
        if self._update is HeadUpdate.fused:
            follow = self._follow(sweep)
        elif self._update is HeadUpdate.plain:
            follow = self._leave_gradients()
        else:
            self.pending.append(sweep)
        self._classes.backward(sweep.rows, samples, sweep.cache, dx_GD=dx_GD, follow=follow)
        if self._update is HeadUpdate.fused:
            self._count()
        return dx_GD * self._embedding_gradient_scale

    def apply(self, gradient_scale: torch.Tensor | float) -> None:
        """Follow the gradient of all pending backward passes, times ``gradient_scale``."""
        if self.pending:
            self._sweep_pending(self._follow(self.pending[-1]), gradient_scale)
            self._count()
        self.pending.clear()

    def norm_squared(self) -> torch.Tensor:
        """Return the sum of squares of this rank's gradient, a scalar."""
        if self._update is HeadUpdate.plain:
            norms = [p.grad.square().sum() for p in self._parameters if p.grad is not None]
            return torch.stack(norms).sum()
        sums = [SquaredNorm(self._ranks.device) for _ in self._optimizers]
        follow = Follow(sums[0], sums[1] if len(sums) > 1 else None, 0.0, self._noise)
        self._sweep_pending(follow, 1.0)
        return torch.stack([each.total for each in sums]).sum()

    def _sweep_pending(self, follow: Follow, gradient_scale: torch.Tensor | float) -> None:
        """Sweep once over the classes for the samples of all pending micro-batches together."""
        if not self.pending:
            return
        samples = Samples.together([sweep.samples for sweep in self.pending])
        assert samples.weight_G is not None
        samples = replace(samples, weight_G=samples.weight_G * gradient_scale)
        is_alone = len(self.pending) == 1
        cache = self.pending[0].cache if is_alone else LogitsCache(0)
        self._classes.backward(self.pending[0].rows, samples, cache, dx_GD=None, follow=follow)

    def _follow(self, sweep: Sweep) -> Follow:
        self._noise.restart(self._seed, sweep.step, self._ranks.rank)
        weight, *bias = self._optimizers
        return Follow(weight, bias[0] if bias else None, sweep.lr, self._noise)

    def _leave_gradients(self) -> Follow:
        plain = []
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            plain.append(PlainGradient(parameter.grad))
        return Follow(plain[0], plain[1] if len(plain) > 1 else None, 0.0, self._noise)

    def _count(self) -> None:
        self.version += 1
        for optimizer in self._optimizers:
            optimizer.updates += 1


class StreamedLoss(torch.autograd.Function):
    """Puts the two sweeps into autograd's graph: the loss is known, its gradient is not yet."""

    @staticmethod
    def forward(
        ctx: Any, x_GD: torch.Tensor, loss: torch.Tensor, sweep: Sweep, update: CenterUpdate
    ) -> torch.Tensor:
        """Return the loss."""
        del x_GD
        ctx.sweep, ctx.update = sweep, update
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Return the gradient by ``x_GD``, [G, D]."""
        return ctx.update.backward(ctx.sweep, gradients[0]), None, None, None
