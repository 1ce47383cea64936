"""The softmax over a rank's classes, streamed: a chunk of classes at a time, forward and backward.

Nothing here is as large as [G, L] or, beside the class centers and what their optimizer keeps, as
[L, D]. With x_b the (normalized) embeddings, W_k the class centers as they are stored, s the scale
and cos_bk = x_b . W_k / |W_k|, the logits are s cos_bk, those of the targets s margin(cos_bk).

Forward, per chunk: the logits, and a running maximum and sum of exponentials (Milakov and
Gimelshein, "Online normalizer calculation for softmax", arXiv 1805.02867).
Backward, per chunk: the logits again (or from a cache), P_bk = w_b softmax_bk, for targets
(P_bk - w_b) margin'(cos_bk); then

    dL/dx_b = sum_k A_bk W_k                    A_bk = s P_bk / |W_k|
    dL/dW_k = sum_b A_bk x_b - radial_k W_k     radial_k = (sum_b P_bk s cos_bk) / |W_k|^2

where the radial term is the part of the gradient along W_k, which normalization takes away. Plain
softmax has neither 1 / |W_k| nor the radial term, but a bias.

G global batch, D embedding, L classes of this rank, N of them take part, K classes of a chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import torch

from plsc.train.head.sampling import SampledRows
from plsc.train.head.stored import Bfloat16, Full, Noise, Rows
from plsc.train.head.update import DenseGradient, Follower, LinearGradient, add_product, product

__all__ = ["ClassRows", "Follow", "LogitsCache", "Samples", "StreamedClasses"]

_NOWHERE = -1e30
"""A logit that no softmax notices, and that stays finite."""


@dataclass(frozen=True)
class ClassRows:
    """The rows that take part in a step: the first ``count``, or those of a sample."""

    count: int
    sample: SampledRows | None = None
    size: int = 0
    """Rows of this rank, L: with a sample, the place of a row that is no class."""

    def chunks(self, chunk_size: int) -> Iterator[tuple[int, int, Rows]]:
        """Yield (first place, number of places, rows) of one chunk after the other."""
        for first in range(0, self.count, chunk_size):
            last = min(first + chunk_size, self.count)
            rows = self.sample.rows_N[first:last] if self.sample else slice(first, last)
            yield first, last - first, rows


@dataclass
class Samples:
    """What the sweeps know of each sample of a global batch; tensors [G, ...]."""

    x_GD: torch.Tensor
    place_G: torch.Tensor
    """int64: where among the rows that take part its class stands; -1: not on this rank."""
    plain_G: torch.Tensor
    """Its target's logit without margin; 0 where the class is not on this rank."""
    target_G: torch.Tensor
    """Its target's logit with margin; 0 where the class is not on this rank."""
    slope_G: torch.Tensor
    """Derivative of the margin."""
    weight_G: torch.Tensor | None = None
    """w: dL / d(cross-entropy of the sample); known in the backward pass."""
    log_sum_G: torch.Tensor | None = None
    """Log of the sum of exponentials over all classes of all ranks."""

    @classmethod
    def together(cls, parts: list["Samples"]) -> "Samples":
        """Return the samples of several micro-batches as those of one."""
        if len(parts) == 1:
            return parts[0]
        names = [f.name for f in fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


@dataclass
class LogitsCache:
    """Logits that are kept from the forward to the backward pass, as far as the budget goes."""

    budget_bytes: int
    kept: dict[int, torch.Tensor] = field(default_factory=dict)

    def room_for(self, first: int, like: torch.Tensor) -> torch.Tensor:
        """Return where to compute the chunk at ``first``: a place of its own, or ``like``."""
        size = like.numel() * like.element_size()
        if size > self.budget_bytes:
            return like
        self.budget_bytes -= size
        self.kept[first] = torch.empty_like(like)
        return self.kept[first]


@dataclass(frozen=True)
class Follow:
    """Who gets the gradients of a sweep, and how."""

    weight: Follower
    bias: Follower | None
    lr: float
    noise: Noise


class StreamedClasses:
    """The classes of a rank: their centers, and how logits come from them."""

    def __init__(
        self,
        weight: Full | Bfloat16,
        bias: Full | None,
        *,
        scale: float,
        is_normalized: bool,
        product_dtype: torch.dtype,
        chunk_size: int,
    ) -> None:
        self._weight = weight
        self._bias = bias
        self._scale = scale
        self._is_normalized = is_normalized
        self._product_dtype = product_dtype
        self._chunk_size = chunk_size

    def target_cosines(self, x_GD: torch.Tensor, rows_G: torch.Tensor) -> torch.Tensor:
        """Return cosines (or plain logits) of each sample with row ``rows_G`` of its class.

        Computed apart and in the dtype of statistics: these are the numbers that the margin and the
        loss depend on most.
        """
        centers_GD = self._weight.read(rows_G)
        dots_G = (x_GD * centers_GD).sum(dim=1)
        if self._is_normalized:
            return dots_G * _inverse_norms(centers_GD, dots_G.dtype)
        return dots_G + self._bias.read(rows_G) if self._bias else dots_G

    def forward(
        self,
        rows: ClassRows,
        samples: Samples,
        cache: LogitsCache,
        thresholds_G: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sweep over the classes once.

        Returns:
            Maximum of the logits [G] (-inf without classes), sum of exp(logit - maximum) [G], and
            int64 [G], how many logits other than the target's are above ``thresholds_G`` (zeros if
            that is None).
        """
        x_GD = samples.x_GD.to(self._product_dtype)
        maximum_G = samples.plain_G.new_full((len(x_GD),), -torch.inf)
        total_G = torch.zeros_like(maximum_G)
        above_G = torch.zeros_like(samples.place_G)
        work = _Workspace(samples, min(self._chunk_size, rows.count))
        for first, size, chosen in rows.chunks(self._chunk_size):
            logits_GK = cache.room_for(first, work.matrix(0, size))
            self._logits(x_GD, *self._operand(chosen), rows, chosen, out=logits_GK)
            _put(logits_GK, samples.place_G - first, samples.target_G)
            if thresholds_G is not None:
                above_G += (logits_GK > thresholds_G[:, None]).sum(dim=1)
            larger_G = torch.maximum(maximum_G, logits_GK.amax(dim=1))
            total_G *= (maximum_G - larger_G).exp_()
            maximum_G = larger_G
            shifted_GK = torch.sub(logits_GK, maximum_G[:, None], out=work.matrix(1, size))
            total_G += shifted_GK.exp_().sum(dim=1)
        return maximum_G, total_G, above_G

    def backward(
        self,
        rows: ClassRows,
        samples: Samples,
        cache: LogitsCache,
        *,
        dx_GD: torch.Tensor | None,
        follow: Follow | None,
    ) -> None:
        """Sweep over the classes again, with ``weight_G`` and ``log_sum_G`` of the samples known.

        Args:
            rows: As in the forward pass; so samples and cache.
            samples: The samples.
            cache: Logits that need not be computed again.
            dx_GD: Where to add dL/dx of this rank's classes; None: not wanted.
            follow: Who gets dL/dW; None: not wanted. Each row is read before it is updated, and
                updated once.
        """
        assert samples.weight_G is not None
        assert samples.log_sum_G is not None
        x_GD = samples.x_GD.to(self._product_dtype)
        probability_G = (samples.target_G - samples.log_sum_G).exp_() * samples.weight_G
        at_target_G = (probability_G - samples.weight_G) * samples.slope_G
        work = _Workspace(samples, min(self._chunk_size, rows.count))
        for first, size, chosen in rows.chunks(self._chunk_size):
            operand_KD, inverse_K = self._operand(chosen)
            logits_GK = cache.kept.get(first)
            if logits_GK is None:
                logits_GK = work.matrix(0, size)
                self._logits(x_GD, operand_KD, inverse_K, rows, chosen, out=logits_GK)
            factors_GK = work.matrix(1, size)
            torch.sub(logits_GK, samples.log_sum_G[:, None], out=factors_GK)
            factors_GK.exp_().mul_(samples.weight_G[:, None])
            _put(factors_GK, samples.place_G - first, at_target_G)
            bias_gradient_K = factors_GK.sum(dim=0) if self._bias else None
            radial_K = None
            if inverse_K is not None:
                _put(logits_GK, samples.place_G - first, samples.plain_G)
                torch.mul(factors_GK, logits_GK, out=work.matrix(0, size))
                radial_K = work.matrix(0, size).sum(dim=0) * inverse_K.square()
                factors_GK.mul_(inverse_K * self._scale)
            narrow_GK = factors_GK.to(self._product_dtype)
            if dx_GD is not None:
                add_product(narrow_GK, operand_KD, dx_GD)
            if follow:
                parameter_KD = self._working(chosen, operand_KD)
                gradient = LinearGradient(parameter_KD, narrow_GK, x_GD, radial_K)
                self._follow(follow, chosen, gradient, bias_gradient_K)

    def _follow(
        self,
        follow: Follow,
        chosen: Rows,
        gradient: LinearGradient,
        bias_gradient_K: torch.Tensor | None,
    ) -> None:
        follow.weight.update(self._weight, chosen, gradient, lr=follow.lr, noise=follow.noise)
        if follow.bias and self._bias and bias_gradient_K is not None:
            dense = DenseGradient(self._bias.read(chosen), bias_gradient_K)
            follow.bias.update(self._bias, chosen, dense, lr=follow.lr, noise=follow.noise)

    def _operand(self, chosen: Rows) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the rows for matrix products, and 1 / |W_k| where that is part of the logits."""
        raw_KD = self._weight.raw(chosen)
        inverse_K = None
        if self._is_normalized:
            dtype = torch.float64 if raw_KD.dtype == torch.float64 else torch.float32
            inverse_K = _inverse_norms(raw_KD, dtype)
        return raw_KD.to(self._product_dtype), inverse_K

    def _working(self, chosen: Rows, operand_KD: torch.Tensor) -> torch.Tensor:
        """Return the rows to update: where possible the very memory that holds them."""
        return self._weight.read(chosen) if operand_KD.dtype == torch.bfloat16 else operand_KD

    def _logits(
        self,
        x_GD: torch.Tensor,
        operand_KD: torch.Tensor,
        inverse_K: torch.Tensor | None,
        rows: ClassRows,
        chosen: Rows,
        *,
        out: torch.Tensor,
    ) -> None:
        if x_GD.dtype == out.dtype:
            torch.mm(x_GD, operand_KD.T, out=out)
        else:
            out.copy_(product(x_GD, operand_KD.T))
        if inverse_K is not None:
            out.mul_(inverse_K * self._scale)
        if self._bias:
            out.add_(self._bias.read(chosen))
        if isinstance(chosen, torch.Tensor):
            out.masked_fill_(chosen == rows.size, _NOWHERE)


class _Workspace:
    """Two matrices [G, K] that every chunk uses anew."""

    def __init__(self, samples: Samples, chunk_size: int) -> None:
        self._height = len(samples.x_GD)
        self._memory = samples.plain_G.new_empty(2, self._height * chunk_size)

    def matrix(self, number: int, width: int) -> torch.Tensor:
        return self._memory[number, : self._height * width].view(self._height, width)


def _inverse_norms(rows_KD: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    norms_K: torch.Tensor = torch.linalg.vector_norm(rows_KD, dim=1, dtype=dtype)
    return norms_K.clamp_min_(1e-12).reciprocal_()


def _put(matrix_GK: torch.Tensor, column_G: torch.Tensor, values_G: torch.Tensor) -> None:
    """Set matrix[b, column_b] = values_b where the column is one of the matrix; no waiting."""
    width = matrix_GK.shape[1]
    is_here_G = (column_G >= 0) & (column_G < width)
    column_G1 = column_G.clamp(0, width - 1)[:, None]
    kept_G1 = matrix_GK.gather(1, column_G1)
    matrix_GK.scatter_(1, column_G1, torch.where(is_here_G[:, None], values_G[:, None], kept_G1))
