"""GlyphNet: a small residual network for printed characters, sized for two CPU cores.

Four stride-2 stages, a residual block in each of the two last, a fully connected embedding with
batch norm: the shape of iResNet in small. Shapes: B batch, S pixels of a
side, D embedding.
"""

import torch
from torch import nn

from plsc.models.registry import register

__all__ = ["GlyphNet"]


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    """x + conv(conv(x))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), _conv(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x)
        return x + y


@register("glyphnet")
class GlyphNet(nn.Module):
    """float32 [B, 3, S, S] -> [B, D], S a multiple of 16."""

    def __init__(self, *, embedding_size: int, image_size: int, dropout: float) -> None:
        super().__init__()
        if image_size % 16:
            raise ValueError(f"image_size must be a multiple of 16, not {image_size}")
        self.stages = nn.Sequential(
            _conv(3, 16, stride=2),
            _conv(16, 32, stride=2),
            _conv(32, 64, stride=2),
            _Residual(64),
            _conv(64, 128, stride=2),
            _Residual(128),
        )
        self.embed = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(128 * (image_size // 16) ** 2, embedding_size),
            nn.BatchNorm1d(embedding_size),
        )

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """Return the embeddings, [B, D], not normalized."""
        embeddings_BD: torch.Tensor = self.embed(self.stages(images_B3SS))
        return embeddings_BD
