"""One step: forward and backward of each micro-batch, then clipping, loss scaling and update."""

from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from plsc.conf.schema import PipelineConfig, Precision
from plsc.train.head import HeadOutput, HeadStep
from plsc.train.process_group import Ranks
from plsc.train.schedule import RunPlan
from plsc.train.state import TrainState

__all__ = ["Stepper"]

_AUTOCAST = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}


class Stepper:
    """Takes the steps of a run: changes the state's weights and optimizers."""

    def __init__(
        self, state: TrainState, plan: RunPlan, config: PipelineConfig, ranks: Ranks
    ) -> None:
        self.skipped = 0
        """Steps of this process that were left out because an fp16 gradient was not finite."""
        self._state = state
        self._plan = plan
        self._config = config
        self._ranks = ranks
        self._parallel: DistributedDataParallel | None = None
        self._model: nn.Module = state.backbone
        if ranks.world_size > 1:
            # Rank 0's batch-norm statistics are what a checkpoint holds: no need to share them.
            self._parallel = DistributedDataParallel(
                state.backbone, forward_sync_buffers=False, gradient_as_bucket_view=True
            )
            self._model = self._parallel
        if config.train.compile:
            self._model = cast("nn.Module", torch.compile(self._model))

    def take(
        self, step: int, images_BSS3: torch.Tensor, labels_B: torch.Tensor, *, count_correct: bool
    ) -> HeadOutput:
        """Take step number ``step`` and return loss and accuracy of its global batch.

        Collective.

        Args:
            step: Steps done before.
            images_BSS3: uint8 [B, S, S, 3], RGB, B a multiple of ``train.micro_batches``.
            labels_B: int64 [B], -1 is ignored.
            count_correct: Whether to measure accuracy.

        Raises:
            TrainError: If a label is no class, an embedding is not finite, or no loss scale gives
                finite gradients.
        """
        device, train = self._ranks.device, self._config.train
        place = step * self._ranks.world_size + self._ranks.rank
        torch.manual_seed(self._config.seed * 1_000_003 + place)  # dropout: nothing to store
        labels_B = labels_B.to(device, non_blocking=True)
        settings = HeadStep(
            step=step,
            lr=self._plan.lr(step),
            margin=self._plan.margin(step),
            count_correct=count_correct,
            num_valid=train.global_batch_size,
            step_labels_B=labels_B if train.micro_batches > 1 else None,
        )
        self._state.optimizer.zero_grad(set_to_none=True)
        images = images_BSS3.chunk(train.micro_batches)
        labels = labels_B.chunk(train.micro_batches)
        outputs = [
            self._pass(images[n], labels[n], settings, is_last=n + 1 == len(images))
            for n in range(len(images))
        ]
        self._update(settings.lr)
        return _sum(outputs)

    def _pass(
        self, images_BSS3: torch.Tensor, labels_B: torch.Tensor, step: HeadStep, *, is_last: bool
    ) -> HeadOutput:
        scale = self._state.loss_scale
        images_B3SS = _to_model_input(images_BSS3.to(self._ranks.device, non_blocking=True))
        is_local = self._parallel is not None and not is_last
        with self._parallel.no_sync() if self._parallel and is_local else nullcontext():
            with self._autocast():
                embeddings_BD = self._model(images_B3SS)
            output: HeadOutput = self._state.head(embeddings_BD.float(), labels_B, step)
            (output.loss * scale.value if scale else output.loss).backward()
        return output

    def _autocast(self) -> AbstractContextManager[object]:
        dtype = _AUTOCAST.get(self._config.train.precision)
        return torch.autocast(self._ranks.device.type, dtype) if dtype else nullcontext()

    def _update(self, lr: float) -> None:
        state, scale = self._state, self._state.loss_scale
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.head.reduce_gradients()
        gradients = [
            p.grad for g in state.optimizer.param_groups for p in g["params"] if p.grad is not None
        ]
        unscale = 1.0
        if scale:
            unscale = 1 / scale.value
            is_finite = self._are_finite(gradients)
            scale.update(is_finite)
            if not is_finite:
                self.skipped += 1
                state.head.discard_update()
                return
        factor: torch.Tensor | float = unscale
        if self._config.train.clip_norm:
            factor = unscale * self._clip_factor(gradients, unscale)
        if isinstance(factor, torch.Tensor) or factor != 1:
            torch._foreach_mul_(gradients, factor)
        state.optimizer.step()
        state.head.apply_update(factor)

    def _are_finite(self, gradients: list[torch.Tensor]) -> bool:
        """Return whether the gradients of all ranks are finite; waits for the device."""
        norms = torch.stack(torch._foreach_norm(gradients, float("inf")))  # noqa: SLF001
        return bool(self._ranks.gather(norms.isfinite().all()).all())

    def _clip_factor(self, gradients: list[torch.Tensor], unscale: float) -> torch.Tensor:
        """Return by what to multiply so that the norm over backbone and head is in its limit."""
        head = self._state.head
        own = {id(p.grad) for p in head.parameters() if p.grad is not None}
        of_head = head.gradient_norm_squared()
        of_backbone = [g for g in gradients if id(g) not in own]
        norms = torch.stack(torch._foreach_norm(of_backbone))  # noqa: SLF001
        norm = (norms.square().sum() + of_head).sqrt() * unscale
        return (self._config.train.clip_norm / (norm + 1e-6)).clamp_max(1.0)


def _to_model_input(images_BSS3: torch.Tensor) -> torch.Tensor:
    """Return float32 [B, 3, S, S] in [-1, 1], channels last: what ``plsc.transforms`` gives."""
    images_B3SS = images_BSS3.permute(0, 3, 1, 2)  # a view that is channels last already
    scaled = images_B3SS.to(torch.float32, memory_format=torch.channels_last)
    return scaled.sub_(127.5).div_(127.5)


def _sum(outputs: list[HeadOutput]) -> HeadOutput:
    """Return loss and accuracy of a step from those of its micro-batches."""

    def total(name: str) -> torch.Tensor | None:
        values = [getattr(output, name) for output in outputs]
        return None if values[0] is None else torch.stack(values).sum(dim=0)

    loss = total("loss")
    assert loss is not None
    return HeadOutput(loss.detach(), total("correct_1"), total("correct_5"))
