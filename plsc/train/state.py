"""Everything that training changes, in one place: what a checkpoint must hold."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn

from plsc.conf.schema import (
    Distribution,
    HeadConfig,
    HeadUpdate,
    Optimizer,
    PipelineConfig,
    Precision,
    TrainConfig,
)
from plsc.models import build, checkpoint_gradients
from plsc.train.head import ShardedHead
from plsc.train.loss_scale import LossScale
from plsc.train.process_group import Ranks

__all__ = ["TrainState"]


@dataclass
class TrainState:
    """Backbone, head and optimizer after ``step`` steps."""

    backbone: nn.Module
    head: ShardedHead
    optimizer: torch.optim.Optimizer
    """Of the backbone; and of the head, where ``head.update`` is ``plain``."""
    loss_scale: LossScale | None = None
    """In fp16 training."""
    step: int = 0

    @classmethod
    def fresh(cls, config: PipelineConfig, num_classes: int, ranks: Ranks) -> "TrainState":
        """Return the state before the first step; it depends on the seed, not on the ranks.

        Args:
            config: The configuration.
            num_classes: Classes of the data set, C.
            ranks: The ranks that share the head.

        Raises:
            ConfigError: If the backbone cannot be built.
        """
        train = config.train
        torch.manual_seed(config.seed)
        backbone = build(config.model, config.image_size)
        backbone = backbone.to(ranks.device).to(memory_format=torch.channels_last)
        if train.gradient_checkpointing:
            checkpoint_gradients(backbone)
        head = ShardedHead(
            _resolved(train),
            train.optimizer,
            num_classes=num_classes,
            embedding_size=config.model.embedding_size,
            ranks=ranks,
            seed=config.seed,
        )
        loss_scale = LossScale(train.loss_scale) if train.precision is Precision.fp16 else None
        return cls(backbone, head, _optimizer(train, backbone, head), loss_scale)


def _resolved(train: TrainConfig) -> HeadConfig:
    """Return the head's settings with ``update=auto`` decided by what a step needs."""
    head = train.head
    needs_all = train.micro_batches > 1 or train.clip_norm or train.precision is Precision.fp16
    if head.update is not HeadUpdate.auto or not needs_all:
        return head
    if head.distribution is Distribution.replicated:
        return head
    return dataclasses.replace(head, update=HeadUpdate.deferred)


def _optimizer(train: TrainConfig, backbone: nn.Module, head: nn.Module) -> torch.optim.Optimizer:
    settings = train.optimizer
    trained = [p for m in (backbone, head) for p in m.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    if settings.name is Optimizer.adamw:
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999))
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
