"""How a matrix of the head is stored: fp32, bf16, or int8 with a scale per block.

Rows are read as float32 (or float64) working values and written back, a chunk at a time. Stochastic
rounding (Gupta et al., "Deep Learning with Limited Numerical Precision", arXiv 1502.02551) rounds
up with the probability of the part that is cut off: small updates are kept on average, where
rounding to nearest would lose every one of them.
"""

import random
from typing import Protocol

import torch

from plsc.conf.schema import StateDtype

__all__ = ["Bfloat16", "Full", "Int8", "Noise", "Rows", "Stored", "decode", "stored"]

Rows = slice | torch.Tensor
"""Which rows: a contiguous block, or int64 indexes [K]."""

_BLOCK = 128
_SCALE = "_scale"
_NUM_OFFSETS = 4096
"""Places in a table of noise that a chunk may begin to read at."""


class Noise:
    """Random numbers for stochastic rounding, the same for the same (seed, step, rank).

    They are drawn once a step, and each chunk reads them from another place on: every value is
    rounded without bias, and drawing costs next to nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._generator = torch.Generator(device)
        self._tables: dict[torch.dtype, torch.Tensor] = {}
        self._offsets = random.Random()  # noqa: S311  no secrets

    def restart(self, seed: int, step: int, rank: int) -> None:
        """Begin the numbers of a step."""
        key = (seed * 1_000_003 + step) * 65_537 % 2**62 + rank
        self._generator.manual_seed(key)
        self._offsets.seed(key)
        self._tables.clear()

    def bits(self, like: torch.Tensor) -> torch.Tensor:
        """Return uniform int32 in 0..65535, shaped ``like``."""
        return self._read(like, torch.int32)

    def fractions(self, like: torch.Tensor) -> torch.Tensor:
        """Return uniform float32 in 0..1 (1 excluded), shaped ``like``."""
        return self._read(like, torch.float32)

    def _read(self, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        table = self._tables.get(dtype)
        if table is None or len(table) < like.numel() + _NUM_OFFSETS:
            size = like.numel() + _NUM_OFFSETS
            table = self._tables[dtype] = torch.empty(size, dtype=dtype, device=like.device)
            if dtype == torch.int32:
                table.random_(0, 1 << 16, generator=self._generator)
            else:
                table.uniform_(0, 1, generator=self._generator)
        first = self._offsets.randrange(_NUM_OFFSETS)
        return table[first : first + like.numel()].view(like.shape)


class Stored(Protocol):
    """A matrix [N, D] (or vector [N]) in some storage format."""

    def read(self, rows: Rows) -> torch.Tensor:
        """Return working values of ``rows``: a view where the format allows, else a copy."""

    def write(self, rows: Rows, values: torch.Tensor, noise: Noise) -> None:
        """Store working values that ``read`` returned for the same rows."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what is stored, by the suffix that its name gets in a checkpoint."""


class Full:
    """Stored as it is computed."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def raw(self, rows: Rows) -> torch.Tensor:
        """Return the rows as they are stored: a view for a slice, a copy for indexes."""
        return _taken(self._tensor, rows)

    def read(self, rows: Rows) -> torch.Tensor:
        """Return the same as ``raw``."""
        return _taken(self._tensor, rows)

    def write(self, rows: Rows, values: torch.Tensor, noise: Noise) -> None:  # noqa: ARG002  exact
        """Store the values; a slice's are stored already, for ``read`` gave a view."""
        if isinstance(rows, torch.Tensor):
            _put(self._tensor, rows, values)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensor."""
        return {"": self._tensor}


class Bfloat16:
    """Stored as bfloat16; written with stochastic rounding, or to nearest."""

    def __init__(self, tensor: torch.Tensor, *, is_stochastic: bool) -> None:
        self._tensor = tensor
        self._is_stochastic = is_stochastic

    def raw(self, rows: Rows) -> torch.Tensor:
        """Return the rows as they are stored: a view for a slice, a copy for indexes."""
        return _taken(self._tensor, rows)

    def read(self, rows: Rows) -> torch.Tensor:
        """Return float32 values."""
        return _taken(self._tensor, rows).float()

    def write(self, rows: Rows, values: torch.Tensor, noise: Noise) -> None:
        """Round the values and store them."""
        if not self._is_stochastic:
            _put(self._tensor, rows, values)
            return
        # A bfloat16 is the upper half of a float32: add noise below it, and cut it off.
        bits = (values.view(torch.int32) + noise.bits(values)).bitwise_right_shift_(16)
        _put(self._tensor.view(torch.int16), rows, bits)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensor."""
        return {"": self._tensor}


class Int8:
    """Stored as int8, -127..127, times one float32 scale per block of up to 128 values of a row.

    Block-wise as in Dettmers et al., "8-bit Optimizers via Block-wise Quantization" (arXiv
    2110.02861), but linear with stochastic rounding, which needs no table.
    """

    def __init__(self, tensor: torch.Tensor, scales: torch.Tensor) -> None:
        self._tensor = tensor
        self._scales = scales

    def read(self, rows: Rows) -> torch.Tensor:
        """Return float32 values."""
        return _dequantized(_taken(self._tensor, rows), _taken(self._scales, rows))

    def write(self, rows: Rows, values: torch.Tensor, noise: Noise) -> None:
        """Quantize the values and store them with the scales of their blocks."""
        blocks = values.unflatten(1, (self._scales.shape[1], -1))
        scales = torch.linalg.vector_norm(blocks, ord=torch.inf, dim=2) / 127
        levels = blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)[..., None]
        levels.add_(noise.fractions(levels)).floor_().clamp_(-127, 127)
        _put(self._tensor, rows, levels.flatten(1))
        _put(self._scales, rows, scales)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return levels and scales."""
        return {"": self._tensor, _SCALE: self._scales}


def stored(
    shape: tuple[int, ...], dtype: StateDtype, device: torch.device, *, is_stochastic: bool = True
) -> Stored:
    """Return zeros of ``shape`` [N, D] in the format ``dtype``."""
    if dtype is StateDtype.bf16:
        zeros = torch.zeros(shape, dtype=torch.bfloat16, device=device)
        return Bfloat16(zeros, is_stochastic=is_stochastic)
    if dtype is StateDtype.int8:
        block = max(size for size in range(1, _BLOCK + 1) if shape[1] % size == 0)
        levels = torch.zeros(shape, dtype=torch.int8, device=device)
        return Int8(levels, torch.zeros(shape[0], shape[1] // block, device=device))
    return Full(torch.zeros(shape, device=device))


def decode(name: str, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return tensor ``name`` of a checkpoint as floating-point values, whatever its format."""
    if name + _SCALE in rows:
        return _dequantized(rows[name], rows[name + _SCALE])
    return rows[name]


def _dequantized(levels: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    blocks = levels.unflatten(1, (scales.shape[1], -1))
    values: torch.Tensor = blocks.float().mul_(scales[..., None])
    return values.flatten(1)


def _taken(tensor: torch.Tensor, rows: Rows) -> torch.Tensor:
    return tensor.index_select(0, rows) if isinstance(rows, torch.Tensor) else tensor[rows]


def _put(tensor: torch.Tensor, rows: Rows, values: torch.Tensor) -> None:
    if isinstance(rows, torch.Tensor):
        tensor.index_copy_(0, rows, values.to(tensor.dtype))
    else:
        tensor[rows].copy_(values)
