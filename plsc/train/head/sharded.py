"""The head: class centers cut over the ranks, and the margin softmax on top of them.

What it computes is in ``streaming``; here is who computes it when. In a step every rank gathers the
embeddings of all, sweeps over its own classes, and one all-gather of [3, G] numbers makes the
softmax whole. The backward pass sweeps again, and the class centers follow their gradient

- ``fused``: in that sweep, so that their gradient never exists as a tensor;
- ``deferred``: in one more sweep, ``apply_update``, when the whole gradient is known to be wanted
  (micro-batches, clipping, loss scaling);
- ``plain``: not at all: ``weight.grad`` is left to an optimizer of torch's.

B local batch, G global batch (= B x world size), D embedding, C all classes, L of this rank.
"""

import torch
from torch import nn
from torch.nn import functional

from plsc.conf.checks import update_problems
from plsc.conf.schema import (
    Distribution,
    HeadConfig,
    HeadUpdate,
    Loss,
    OptimizerConfig,
    Precision,
    StateDtype,
)
from plsc.errors import ConfigError
from plsc.train.head.center_update import CenterUpdate, StreamedLoss, Sweep
from plsc.train.head.centers import draw_class_centers
from plsc.train.head.inputs import check_embeddings, check_labels
from plsc.train.head.margin import Margin
from plsc.train.head.sampling import sample_rows
from plsc.train.head.step import HeadOutput, HeadStep
from plsc.train.head.stored import Bfloat16, Full
from plsc.train.head.streaming import ClassRows, LogitsCache, Samples, StreamedClasses
from plsc.train.head.update import RowOptimizer, load_slots, make_optimizer, slot_rows
from plsc.train.partition import partition_classes
from plsc.train.process_group import Ranks, gather_embeddings

__all__ = ["ShardedHead"]


class ShardedHead(nn.Module):
    """A classifier whose C class centers are cut over the ranks in contiguous blocks.

    The result on any number of ranks equals that of one process with all classes; so do the
    initial weights, which depend on the seed and the class id only. A ``replicated`` head is the
    same with every class on every rank, each of which sees its own samples only.
    """

    def __init__(
        self,
        config: HeadConfig,
        optimizer: OptimizerConfig,
        *,
        num_classes: int,
        embedding_size: int,
        ranks: Ranks,
        seed: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Draw the class centers.

        Args:
            config: ``update`` may be ``auto``: ``fused``, or ``plain`` where it is replicated.
            optimizer: How class centers follow their gradients.
            num_classes: C.
            embedding_size: D.
            ranks: The ranks that share the head.
            seed: Of the class centers, of sampling and of stochastic rounding.
            dtype: float32, or float64 for exact checks.

        Raises:
            ConfigError: If ``update`` cannot be had with the other settings.
        """
        super().__init__()
        if problems := update_problems(config):
            raise ConfigError("; ".join(problems))
        is_replicated = config.distribution is Distribution.replicated
        self.config = config
        self.ranks = ranks
        self.is_writer = not is_replicated or ranks.is_first
        self.num_classes, self.embedding_size = num_classes, embedding_size
        self.update = config.update
        if config.update is HeadUpdate.auto:
            self.update = HeadUpdate.plain if is_replicated else HeadUpdate.fused
        self._sharers = Ranks(0, 1, ranks.device) if is_replicated else ranks
        self.classes = partition_classes(num_classes, self._sharers.world_size, self._sharers.rank)
        self._first_rank, self._seed = (ranks.rank if is_replicated else 0), seed
        self._dtype, self._is_normalized = dtype, config.loss is not Loss.softmax
        rows = self._allocate()
        self._optimizers: list[RowOptimizer] = []
        if self.update is not HeadUpdate.plain:
            self._optimizers = [make_optimizer(config, optimizer, tensor) for tensor in rows]
        self._classes = self._streamed(*rows)
        self._update = CenterUpdate(
            self.update,
            self._classes,
            list(self.parameters()),
            self._optimizers,
            ranks=ranks,
            seed=seed,
            # DistributedDataParallel will divide by the number of ranks.
            embedding_gradient_scale=ranks.world_size if is_replicated else 1,
        )

    def _allocate(self) -> list[torch.Tensor]:
        """Make weight and bias and return what they are views of.

        With sampling that is one row more, which is no class: where places without one point to.
        """
        config, device = self.config, self.ranks.device
        size = len(self.classes)
        total = size + (config.sample_rate < 1)
        dtype = torch.bfloat16 if config.weight_dtype is StateDtype.bf16 else self._dtype
        weight = torch.ones(total, self.embedding_size, dtype=dtype, device=device)
        draw_class_centers(weight[:size], self.classes, self._seed)
        is_plain = self.update is HeadUpdate.plain
        self.weight = nn.Parameter(weight[:size], requires_grad=is_plain)
        self.bias: nn.Parameter | None = None
        if self._is_normalized:
            return [weight]
        bias = torch.zeros(total, dtype=self._dtype, device=device)
        self.bias = nn.Parameter(bias[:size], requires_grad=is_plain)
        return [weight, bias]

    def _streamed(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> StreamedClasses:
        is_half = weight.dtype == torch.bfloat16
        is_narrow = self.config.precision is Precision.bf16
        return StreamedClasses(
            Bfloat16(weight, is_stochastic=True) if is_half else Full(weight),
            None if bias is None else Full(bias),
            scale=self.config.scale,
            is_normalized=self._is_normalized,
            product_dtype=torch.bfloat16 if is_narrow else self._dtype,
            chunk_size=self.config.chunk_size,
        )

    def forward(
        self, embeddings_BD: torch.Tensor, labels_B: torch.Tensor, step: HeadStep
    ) -> HeadOutput:
        """Return loss and accuracy of the global batch.

        Args:
            embeddings_BD: float [B, D], not normalized; B is the same on every rank.
            labels_B: int64 [B]; -1 is ignored, anything else must lie in 0..C-1.
            step: What to know of this step.

        Collectives: all-gathers of labels, embeddings and [3, G].

        Raises:
            TrainError: If a label is no class, or an embedding is not finite; on every rank, before
                anything is updated.
        """
        labels_G = self._sharers.gather(labels_B).flatten()
        check_labels(labels_G, self.num_classes, step.step, len(labels_B), self._first_rank)
        x_BD = embeddings_BD.to(self._dtype)
        if self._is_normalized:
            x_BD = functional.normalize(x_BD)
        if torch.is_grad_enabled() and not x_BD.requires_grad:
            x_BD = x_BD.detach().requires_grad_()  # a frozen backbone: the head still learns
        x_GD = gather_embeddings(x_BD, self._sharers)
        check_embeddings(x_GD.detach(), step.step, len(labels_B), self._first_rank)
        with torch.no_grad():
            sweep, output = self._sweep(x_GD.detach(), labels_G, step)
        if not torch.is_grad_enabled():
            return output
        loss: torch.Tensor = StreamedLoss.apply(x_GD, output.loss, sweep, self._update)
        return HeadOutput(loss, output.correct_1, output.correct_5)

    def _sweep(
        self, x_GD: torch.Tensor, labels_G: torch.Tensor, step: HeadStep
    ) -> tuple[Sweep, HeadOutput]:
        rows, place_G, own_row_G = self._locate(labels_G, step)
        samples = self._samples(x_GD, place_G, own_row_G, step.margin)
        cache = LogitsCache(self.config.logits_cache_mib * 2**20)
        thresholds_G = None
        if step.count_correct:
            thresholds_G = self._sharers.gather(samples.plain_G).sum(dim=0)
        maximum_G, total_G, above_G = self._classes.forward(rows, samples, cache, thresholds_G)

        stats_R3G = self._sharers.gather(torch.stack([maximum_G, total_G, samples.target_G]))
        highest_G = stats_R3G[:, 0].amax(dim=0)
        sums_G = (stats_R3G[:, 1] * (stats_R3G[:, 0] - highest_G).exp()).sum(dim=0)
        samples.log_sum_G = highest_G + sums_G.log()
        is_valid_G = labels_G >= 0
        losses_G = torch.where(is_valid_G, samples.log_sum_G - stats_R3G[:, 2].sum(dim=0), 0.0)
        loss, num_valid = self._mean(losses_G, is_valid_G, step.num_valid)
        sweep = Sweep(
            rows, samples, cache, is_valid_G, num_valid, step.step, step.lr, self._update.version
        )
        if not step.count_correct:
            return sweep, HeadOutput(loss)
        above_G = self._sharers.gather(above_G).sum(dim=0)
        correct_1, correct_5 = (
            self._mean(((above_G < n) & is_valid_G).to(loss), is_valid_G, step.num_valid)[0]
            for n in (1, 5)
        )
        return sweep, HeadOutput(loss, correct_1, correct_5)

    def _locate(
        self, labels_G: torch.Tensor, step: HeadStep
    ) -> tuple[ClassRows, torch.Tensor, torch.Tensor]:
        """Return the rows that take part, each sample's place among them, and its row (or 0)."""
        size = len(self.classes)
        is_own_G = (labels_G >= self.classes.start) & (labels_G < self.classes.stop)
        row_G = torch.where(is_own_G, labels_G - self.classes.start, 0)
        if self.config.sample_rate >= 1 or not size:
            return ClassRows(size), torch.where(is_own_G, row_G, -1), row_G
        all_labels_G = labels_G
        if step.step_labels_B is not None:
            all_labels_G = self._sharers.gather(step.step_labels_B).flatten()
        sample = sample_rows(
            self.classes, self.config.sample_rate, all_labels_G, seed=self._seed, step=step.step
        )
        place_G = torch.where(is_own_G, sample.places(row_G), -1)
        return ClassRows(len(sample.rows_N), sample, size), place_G, row_G

    def _samples(
        self, x_GD: torch.Tensor, place_G: torch.Tensor, row_G: torch.Tensor, margin: Margin
    ) -> Samples:
        is_own_G = place_G >= 0
        cosine_G = x_GD.new_zeros(len(x_GD))
        if self.classes:
            cosine_G = self._classes.target_cosines(x_GD, row_G)
        scale, value_G, slope_G = 1.0, cosine_G, torch.ones_like(cosine_G)
        if self._is_normalized:
            scale = self.config.scale
            value_G, slope_G = margin.apply(cosine_G)
        plain_G = torch.where(is_own_G, cosine_G * scale, 0.0)
        target_G = torch.where(is_own_G, value_G * scale, 0.0)
        return Samples(x_GD, place_G, plain_G, target_G, slope_G)

    def _mean(
        self, values_G: torch.Tensor, is_valid_G: torch.Tensor, divisor: int | None
    ) -> tuple[torch.Tensor, torch.Tensor | int]:
        """Return the sum over all ranks divided by ``divisor`` or the valid samples, and that."""
        sums = torch.stack([values_G.sum(), is_valid_G.sum().to(values_G)])
        if self._sharers is not self.ranks:
            sums = self.ranks.gather(sums).sum(dim=0)
        num_valid = divisor or sums[1].clamp_min(1)
        return sums[0] / num_valid, num_valid

    def gradient_norm_squared(self) -> torch.Tensor:
        """Return the sum of squares of the head's gradient over all ranks, a scalar.

        For ``deferred``, where it takes one sweep, and ``plain``. Collective.
        """
        return self._sharers.gather(self._update.norm_squared()).sum()

    def apply_update(self, gradient_scale: torch.Tensor | float = 1.0) -> None:
        """Let the class centers follow the gradients of all backward passes since the last call.

        With ``deferred``: one sweep. Nothing to do otherwise.

        Args:
            gradient_scale: Factor on the gradient: clipping, 1 / loss scale.
        """
        self._update.apply(gradient_scale)

    def discard_update(self) -> None:
        """Forget the backward passes since the last ``apply_update``: the step is skipped."""
        self._update.pending.clear()

    def reduce_gradients(self) -> None:
        """Sum the plain gradients of a replicated head over the ranks. Collective."""
        if self._sharers is not self.ranks:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    self.ranks.sum_(parameter.grad)

    def state_rows(self) -> dict[str, torch.Tensor]:
        """Return everything that training changes here, row by row.

        Tensors with first dimension L: ``weight`` [L, D], ``bias`` [L], ``optimizer/<parameter>/
        <slot>`` (int8 ones with ``..._scale`` [L, blocks]), and the 0-dimensional ``optimizer/
        <parameter>/step`` of AdamW. All are views of the live tensors.

        Raises:
            RuntimeError: Between the micro-batches of a step: half a step belongs to no checkpoint.
        """
        if self._update.pending:
            raise RuntimeError(
                f"{len(self._update.pending)} backward passes wait for apply_update: take the state"
                " of the head between steps, so that any number of ranks can go on from it"
            )
        rows = {name: p.detach() for name, p in self.named_parameters()}
        for name, optimizer in zip(("weight", "bias"), self._optimizers, strict=False):
            rows |= slot_rows(optimizer, f"optimizer/{name}/", len(self.classes))
        return rows

    def load_rows(self, rows: dict[str, torch.Tensor]) -> None:
        """Take back what ``state_rows`` gave, converted to this head's storage formats."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(rows[name])
            for name, optimizer in zip(("weight", "bias"), self._optimizers, strict=False):
                load_slots(optimizer, f"optimizer/{name}/", rows)
