"""How class centers follow their gradient, a chunk of rows at a time: SGD, AdamW, or just kept.

The gradient of a chunk is not a tensor but a recipe, A^T x - diag(radial) W (see ``streaming``), so
that SGD can add the matrix product straight into its momentum.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from plsc.conf.schema import HeadConfig, Optimizer, OptimizerConfig, StateDtype
from plsc.train.head.stored import Full, Noise, Rows, Stored, decode, stored

__all__ = [
    "AdamW",
    "DenseGradient",
    "Follower",
    "LinearGradient",
    "PlainGradient",
    "RowOptimizer",
    "Sgd",
    "SquaredNorm",
    "add_product",
    "load_slots",
    "make_optimizer",
    "product",
    "slot_rows",
]

_BETA2, _EPSILON = 0.999, 1e-8


class Gradient(Protocol):
    """The gradient of a chunk of rows."""

    @property
    def parameter(self) -> torch.Tensor:
        """Working values of the rows, [K, D] or [K]."""

    def add_to(self, tensor: torch.Tensor, *, decay: float, weight_decay: float) -> None:
        """Tensor = decay * tensor + gradient + weight_decay * parameter, in place."""


@dataclass(frozen=True)
class LinearGradient:
    """A^T x - diag(radial) W: of the class centers W [K, D]."""

    parameter: torch.Tensor
    """W, [K, D], working values."""
    factors_GK: torch.Tensor
    """A: dL / d(x_b . W_k)."""
    x_GD: torch.Tensor
    radial_K: torch.Tensor | None
    """How much of the row itself the gradient contains; None without normalization."""

    def add_to(self, tensor: torch.Tensor, *, decay: float, weight_decay: float) -> None:
        """Add the gradient; one matrix product."""
        add_product(self.factors_GK.T, self.x_GD, tensor, decay=decay)
        if self.radial_K is not None:
            tensor.addcmul_(self.parameter, (weight_decay - self.radial_K)[:, None])
        elif weight_decay:
            tensor.add_(self.parameter, alpha=weight_decay)


@dataclass(frozen=True)
class DenseGradient:
    """A gradient that is there: of the biases [K]."""

    parameter: torch.Tensor
    values: torch.Tensor

    def add_to(self, tensor: torch.Tensor, *, decay: float, weight_decay: float) -> None:
        """Add the gradient."""
        (tensor.mul_(decay) if decay else tensor.zero_()).add_(self.values)
        tensor.add_(self.parameter, alpha=weight_decay)


def add_product(
    left: torch.Tensor, right: torch.Tensor, into: torch.Tensor, *, decay: float = 1.0
) -> None:
    """Into = decay * into + left @ right, in place; ``into`` has the dtype of statistics."""
    if left.dtype == into.dtype:
        into.addmm_(left, right, beta=decay)
        return
    if decay != 1:
        into.mul_(decay) if decay else into.zero_()
    into.add_(product(left, right))


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return left @ right; of half-precision operands in float32 where the device can."""
    if left.dtype == torch.bfloat16 and left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left, right)


class Follower(Protocol):
    """Whoever takes the gradient of a chunk."""

    def update(
        self, parameter: Stored, rows: Rows, gradient: Gradient, *, lr: float, noise: Noise
    ) -> None:
        """Take the gradient by ``rows`` of ``parameter``."""


class RowOptimizer(Follower, Protocol):
    """An optimizer of rows; ``slots`` are what it keeps for each parameter, by torch's names."""

    slots: dict[str, Stored]
    updates: int
    """Updates done, for bias correction."""


class Sgd:
    """SGD with momentum and coupled weight decay, as torch.optim.SGD with dampening 0.

    buf = momentum * buf + gradient + weight_decay * w; w = w - lr * buf. Rows that take no part in
    a step keep their momentum and do not decay.
    """

    def __init__(self, momentum: float, weight_decay: float, buffer: Stored | None) -> None:
        self.slots = {"momentum_buffer": buffer} if buffer else {}
        self.updates = 0
        self._momentum = momentum
        self._weight_decay = weight_decay

    def update(
        self, parameter: Stored, rows: Rows, gradient: Gradient, *, lr: float, noise: Noise
    ) -> None:
        """Update one chunk."""
        slot = self.slots.get("momentum_buffer")
        buffer = slot.read(rows) if slot else torch.empty_like(gradient.parameter)
        decay = self._momentum if slot else 0.0
        gradient.add_to(buffer, decay=decay, weight_decay=self._weight_decay)
        gradient.parameter.add_(buffer, alpha=-lr)
        parameter.write(rows, gradient.parameter, noise)
        if slot:
            slot.write(rows, buffer, noise)


class AdamW:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101), as torch.optim.AdamW.

    Rows that take no part in a step keep their moments; bias correction counts all steps.
    """

    def __init__(self, beta1: float, weight_decay: float, first: Stored, second: Stored) -> None:
        self.slots = {"exp_avg": first, "exp_avg_sq": second}
        self.updates = 0
        self._beta1 = beta1
        self._weight_decay = weight_decay

    def update(
        self, parameter: Stored, rows: Rows, gradient: Gradient, *, lr: float, noise: Noise
    ) -> None:
        """Update one chunk."""
        values = gradient.parameter
        dense = torch.empty_like(values)
        gradient.add_to(dense, decay=0.0, weight_decay=0.0)
        first = self.slots["exp_avg"].read(rows)
        second = self.slots["exp_avg_sq"].read(rows)
        first.lerp_(dense, 1 - self._beta1)
        second.mul_(_BETA2).addcmul_(dense, dense, value=1 - _BETA2)
        number = self.updates + 1
        torch.sqrt(second, out=dense)
        dense.div_((1 - _BETA2**number) ** 0.5).add_(_EPSILON)
        values.mul_(1 - lr * self._weight_decay)
        values.addcdiv_(first, dense, value=-lr / (1 - self._beta1**number))
        parameter.write(rows, values, noise)
        self.slots["exp_avg"].write(rows, first, noise)
        self.slots["exp_avg_sq"].write(rows, second, noise)


class PlainGradient:
    """No optimizer: the gradient is added to a tensor, for an optimizer of torch's."""

    def __init__(self, gradient: torch.Tensor) -> None:
        self._gradient = gradient

    def update(
        self, parameter: Stored, rows: Rows, gradient: Gradient, *, lr: float, noise: Noise
    ) -> None:
        """Add one chunk."""
        del parameter, lr, noise
        gradient.add_to(self._gradient[rows], decay=1.0, weight_decay=0.0)


class SquaredNorm:
    """No optimizer: the squares of the gradient are summed."""

    def __init__(self, device: torch.device) -> None:
        self.total = torch.zeros((), device=device)

    def update(
        self, parameter: Stored, rows: Rows, gradient: Gradient, *, lr: float, noise: Noise
    ) -> None:
        """Sum one chunk."""
        del parameter, rows, lr, noise
        dense = torch.empty_like(gradient.parameter)
        gradient.add_to(dense, decay=0.0, weight_decay=0.0)
        self.total = self.total + torch.linalg.vector_norm(dense).square()


def make_optimizer(
    head: HeadConfig,
    config: OptimizerConfig,
    parameter: torch.Tensor,
) -> RowOptimizer:
    """Return the optimizer of ``parameter``, [N, D] class centers or [N] biases.

    Biases do not decay, and what is kept for them is always float32.
    """
    is_matrix = parameter.ndim == 2
    decay = config.weight_decay if is_matrix else 0.0
    momentum_dtype = head.momentum_dtype if is_matrix else StateDtype.fp32

    def zeros(dtype: StateDtype, *, is_stochastic: bool = False) -> Stored:
        if parameter.dtype == torch.float64:
            return Full(torch.zeros_like(parameter))
        shape = tuple(parameter.shape)
        return stored(shape, dtype, parameter.device, is_stochastic=is_stochastic)

    if config.name is Optimizer.adamw:
        is_small = momentum_dtype is not StateDtype.fp32
        second = StateDtype.bf16 if is_small else StateDtype.fp32
        # beta2 moves the second moment by 0.1 % a step, less than bf16 resolves: round at random.
        return AdamW(
            config.momentum, decay, zeros(momentum_dtype), zeros(second, is_stochastic=True)
        )
    return Sgd(config.momentum, decay, zeros(momentum_dtype) if config.momentum else None)


def slot_rows(optimizer: RowOptimizer, prefix: str, size: int) -> dict[str, torch.Tensor]:
    """Return what an optimizer keeps for the first ``size`` rows, as ``<prefix><slot>``; views."""
    rows = {
        prefix + slot + suffix: tensor[:size]
        for slot, kept in optimizer.slots.items()
        for suffix, tensor in kept.tensors().items()
    }
    if "exp_avg" in optimizer.slots:
        rows[prefix + "step"] = torch.tensor(float(optimizer.updates))
    return rows


def load_slots(optimizer: RowOptimizer, prefix: str, rows: dict[str, torch.Tensor]) -> None:
    """Bring back what an optimizer kept, from tensors named ``<prefix><slot>`` of any format."""
    for slot, kept in optimizer.slots.items():
        if prefix + slot in rows:
            _load(kept, prefix + slot, rows)
    if prefix + "step" in rows:
        optimizer.updates = int(rows[prefix + "step"].item())


def _load(kept: Stored, name: str, rows: dict[str, torch.Tensor]) -> None:
    tensors = kept.tensors()
    same = all(
        name + suffix in rows and rows[name + suffix].dtype == tensor.dtype
        for suffix, tensor in tensors.items()
    )
    if same:
        for suffix, tensor in tensors.items():
            tensor[: len(rows[name + suffix])].copy_(rows[name + suffix])
        return
    values = decode(name, rows).to(tensors[""].device)
    noise = Noise(values.device)
    noise.restart(0, 0, 0)  # the same rounding whenever it is loaded
    whole = slice(0, len(values))
    working = kept.read(whole).copy_(values)
    kept.write(whole, working, noise)
