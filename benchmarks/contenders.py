"""Who runs against whom: every variant of a classifier's step, by name.

A step is forward, backward and SGD (momentum 0.9, coupled weight decay 5e-4) of the class centers,
with ArcFace (s = 64, m = 0.5) unless it is bare matrix products.
B local batch, G global batch, D embedding, C all classes, L classes of this rank, K of a chunk.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional

from benchmarks.materialized import MaterializedHead
from plsc.conf.schema import (
    GradientMode,
    HeadConfig,
    HeadUpdate,
    OptimizerConfig,
    Precision,
    StateDtype,
)
from plsc.train.head import HeadStep, Margin, ShardedHead
from plsc.train.partition import partition_classes
from plsc.train.process_group import Ranks

__all__ = [
    "VARIANTS",
    "Batch",
    "Centers",
    "Contender",
    "Fused",
    "Shape",
    "facts_of",
    "is_reference",
    "make",
]

_SEED = 2**31  # equal seeds draw equal numbers, and those of class centers are small
MARGIN = 0.5
SCALE = 64.0
OPTIMIZER = OptimizerConfig(lr=0.1, lr_batch_size=0, momentum=0.9, weight_decay=5e-4)

_OURS = {
    "fused": HeadConfig(),
    "fused_cached": HeadConfig(),  # with a cache for all logits: see _config
    "fused_bf16": HeadConfig(precision=Precision.bf16),
    "fused_bf16_momentum": HeadConfig(momentum_dtype=StateDtype.bf16),
    # Where weights are bf16 so is the arithmetic: fp32 products of them would be no more exact.
    "fused_bf16_state": HeadConfig(
        precision=Precision.bf16, weight_dtype=StateDtype.bf16, momentum_dtype=StateDtype.bf16
    ),
    "fused_8bit_momentum": HeadConfig(
        precision=Precision.bf16, weight_dtype=StateDtype.bf16, momentum_dtype=StateDtype.int8
    ),
    "sampled_0.1": HeadConfig(sample_rate=0.1),
}
_REFERENCES = ["materialized", "materialized_sampled_0.1", "dense", "floor_3gemm", "floor_4gemm"]
VARIANTS = [*_OURS, *_REFERENCES]


@dataclass(frozen=True)
class Shape:
    """The size of the task."""

    classes: int
    batch_size: int
    """Samples of a step over all ranks, G."""
    embedding_size: int = 512
    chunk_size: int = HeadConfig().chunk_size


@dataclass(frozen=True)
class Batch:
    """What a rank's step is given."""

    embeddings_BD: torch.Tensor
    labels_B: torch.Tensor

    @classmethod
    def drawn(cls, shape: Shape, ranks: Ranks) -> "Batch":
        """Return this rank's part of random samples, which do not depend on the ranks."""
        generator = torch.Generator().manual_seed(_SEED)
        embeddings = torch.randn(shape.batch_size, shape.embedding_size, generator=generator)
        labels = torch.randint(shape.classes, (shape.batch_size,), generator=generator)
        size = shape.batch_size // ranks.world_size
        own = slice(ranks.rank * size, (ranks.rank + 1) * size)
        return cls(embeddings[own].to(ranks.device), labels[own].to(ranks.device))


@dataclass(frozen=True)
class Centers:
    """Class centers and momentum of a rank in fp32, which references may share with our head."""

    weight_LD: torch.Tensor
    momentum_LD: torch.Tensor

    @classmethod
    def drawn(cls, shape: Shape, ranks: Ranks) -> "Centers":
        """Return random centers of expected length 1."""
        size = len(partition_classes(shape.classes, ranks.world_size, ranks.rank))
        weight_LD = torch.empty(size, shape.embedding_size, device=ranks.device)
        generator = torch.Generator(ranks.device).manual_seed(_SEED + 1 + ranks.rank)
        weight_LD.normal_(0, 1 / math.sqrt(shape.embedding_size), generator=generator)
        return cls(weight_LD, torch.zeros_like(weight_LD))


class Contender(Protocol):
    """One variant with its state."""

    def step(self, batch: Batch) -> torch.Tensor:
        """Do one step and return its loss, a scalar (0 where there is none)."""


def make(
    variant: str,
    shape: Shape,
    ranks: Ranks,
    *,
    centers: Centers | None = None,
    gradient: GradientMode = GradientMode.exact,
) -> Contender:
    """Return a contender.

    Args:
        variant: One of ``VARIANTS``.
        shape: The size of the task.
        ranks: The ranks; the head, if it is ours, is cut over them.
        centers: Where a reference keeps its state; None: in memory of its own. Ours has its own.
        gradient: Of our margin (``materialized`` always computes ``ste``, ``dense`` ``exact``).
    """
    if variant in _OURS:
        return Fused(_config(variant, shape, ranks, gradient), shape, ranks)
    centers = centers or Centers.drawn(shape, ranks)
    if variant.startswith("floor"):
        return Floor(centers, shape, num_products=int(variant[len("floor_")]))
    if variant == "dense":
        return Reference(DenseHead(centers.weight_LD), centers)
    head = MaterializedHead(
        centers.weight_LD,
        classes=partition_classes(shape.classes, ranks.world_size, ranks.rank),
        ranks=ranks,
        margin=MARGIN,
        scale=SCALE,
        sample_rate=0.1 if "sampled" in variant else 1.0,
    )
    return Reference(head, centers)


def is_reference(variant: str) -> bool:
    """Return whether a variant is none of ours."""
    return variant in _REFERENCES


def facts_of(variant: str) -> dict[str, str]:
    """Return the arithmetic and storage of a variant, for its line of JSON."""
    config = _OURS.get(variant, HeadConfig())
    return {
        "precision": config.precision.value,
        "weight_dtype": config.weight_dtype.value,
        "momentum_dtype": config.momentum_dtype.value,
        "gradient": "ste" if "materialized" in variant else config.gradient.value,
    }


class Fused:
    """Our head."""

    def __init__(self, config: HeadConfig, shape: Shape, ranks: Ranks) -> None:
        self.head = ShardedHead(
            config,
            OPTIMIZER,
            num_classes=shape.classes,
            embedding_size=shape.embedding_size,
            ranks=ranks,
            seed=0,
        )
        self._num_steps = 0
        self._margin = Margin.of(config)

    def step(self, batch: Batch) -> torch.Tensor:
        """Do one step."""
        embeddings_BD = batch.embeddings_BD.detach().requires_grad_()
        step = HeadStep(step=self._num_steps, lr=OPTIMIZER.lr, margin=self._margin)
        loss: torch.Tensor = self.head(embeddings_BD, batch.labels_B, step).loss
        loss.backward()
        self._num_steps += 1
        return loss.detach()

    def centers(self) -> Centers:
        """Return the live class centers and momentum (fp32 ones)."""
        rows = self.head.state_rows()
        return Centers(rows["weight"], rows["optimizer/weight/momentum_buffer"])


class Reference:
    """A head that leaves a gradient to torch's SGD."""

    def __init__(self, head: nn.Module, centers: Centers) -> None:
        self.head = head
        weight = head.get_parameter("weight")
        self._optimizer = torch.optim.SGD(
            [weight], OPTIMIZER.lr, OPTIMIZER.momentum, weight_decay=OPTIMIZER.weight_decay
        )
        self._optimizer.state[weight]["momentum_buffer"] = centers.momentum_LD

    def step(self, batch: Batch) -> torch.Tensor:
        """Do one step."""
        embeddings_BD = batch.embeddings_BD.detach().requires_grad_()
        loss: torch.Tensor = self.head(embeddings_BD, batch.labels_B)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.detach()


class DenseHead(nn.Module):
    """The textbook: one matrix of logits of all classes, and torch's cross-entropy. One rank."""

    def __init__(self, weight_CD: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_CD)

    def forward(self, embeddings_GD: torch.Tensor, labels_G: torch.Tensor) -> torch.Tensor:
        """Return the mean loss: ArcFace's cos(theta + m) without an arccos."""
        logits_GC = functional.linear(
            functional.normalize(embeddings_GD), functional.normalize(self.weight)
        )
        rows_G = torch.arange(len(labels_G), device=labels_G.device)
        target_G = logits_GC[rows_G, labels_G]
        sine_G = (1 - target_G.square()).clamp_min(1e-7).sqrt()
        turned_G = target_G * math.cos(MARGIN) - sine_G * math.sin(MARGIN)
        past_pi_G = target_G - MARGIN * math.sin(MARGIN)
        is_below_pi_G = target_G > math.cos(math.pi - MARGIN)
        logits_GC[rows_G, labels_G] = torch.where(is_below_pi_G, turned_G, past_pi_G)
        return functional.cross_entropy(logits_GC * SCALE, labels_G)


class Floor:
    """Nothing but the step's fp32 matrix products, chunk by chunk, into memory made before.

    The momentum is there, unused: the memory is a floor as well.

    Four products: logits forward, logits again, gradients of embeddings and of weights. Three: as
    if the logits had been kept.
    """

    def __init__(self, centers: Centers, shape: Shape, *, num_products: int) -> None:
        self._weight_LD = centers.weight_LD
        self._is_computed_again = num_products == 4
        self._chunk_size = shape.chunk_size
        size = min(shape.chunk_size, len(centers.weight_LD))
        new = centers.weight_LD.new_empty
        self._embeddings_GD = new(shape.batch_size, shape.embedding_size).normal_()
        self._logits = new(shape.batch_size * size).normal_()
        self._gradient_GD = new(shape.batch_size, shape.embedding_size)
        self._gradient_KD = new(size, shape.embedding_size)

    @torch.no_grad()
    def step(self, batch: Batch) -> torch.Tensor:
        """Multiply."""
        chunks = self._weight_LD.split(self._chunk_size)
        embeddings_GD = self._embeddings_GD
        for weight_KD in chunks:
            torch.mm(embeddings_GD, weight_KD.T, out=self._logits_of(weight_KD))
        self._gradient_GD.zero_()
        for weight_KD in chunks:
            logits_GK = self._logits_of(weight_KD)
            if self._is_computed_again:
                torch.mm(embeddings_GD, weight_KD.T, out=logits_GK)
            self._gradient_GD.addmm_(logits_GK, weight_KD)
            torch.mm(logits_GK.T, embeddings_GD, out=self._gradient_KD[: len(weight_KD)])
        return batch.embeddings_BD.new_zeros(())

    def _logits_of(self, weight_KD: torch.Tensor) -> torch.Tensor:
        return self._logits[: len(self._embeddings_GD) * len(weight_KD)].view(-1, len(weight_KD))


def _config(variant: str, shape: Shape, ranks: Ranks, gradient: GradientMode) -> HeadConfig:
    cache_mib = 0
    if variant == "fused_cached":
        rows = len(partition_classes(shape.classes, ranks.world_size, 0))
        cache_mib = math.ceil(shape.batch_size * rows * 4 / 2**20) + 1
    return replace(
        _OURS[variant],
        margin=MARGIN,
        scale=SCALE,
        gradient=gradient,
        update=HeadUpdate.fused,
        chunk_size=shape.chunk_size,
        logits_cache_mib=cache_mib,
    )
