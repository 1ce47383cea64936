"""Everything that training changes, in one place: what a checkpoint must hold."""

from dataclasses import dataclass

import torch
from torch import nn

from plsc.conf.schema import Optimizer, PipelineConfig
from plsc.models import build
from plsc.train.head import ShardedHead
from plsc.train.process_group import Ranks

__all__ = ["TrainState"]


@dataclass
class TrainState:
    """Backbone, head and optimizer after ``step`` steps."""

    backbone: nn.Module
    head: ShardedHead
    optimizer: torch.optim.Optimizer
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
        torch.manual_seed(config.seed)
        backbone = build(config.model, config.image_size)
        backbone = backbone.to(ranks.device).to(memory_format=torch.channels_last)
        head = ShardedHead(
            config.train.head,
            num_classes=num_classes,
            embedding_size=config.model.embedding_size,
            ranks=ranks,
            seed=config.seed,
        ).to(ranks.device)
        return cls(backbone, head, _optimizer(config, backbone, head))


def _optimizer(
    config: PipelineConfig, backbone: nn.Module, head: nn.Module
) -> torch.optim.Optimizer:
    settings = config.train.optimizer
    trained = [p for m in (backbone, head) for p in m.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    if settings.name is Optimizer.adamw:
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999))
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
