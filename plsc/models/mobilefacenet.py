"""MobileFaceNet: a million weights that verify faces on a phone (arXiv 1804.07573, table 1).

Inverted residual blocks with PReLU, and where other networks average over the last feature map, a
global depthwise convolution: it learns how much each place of an aligned face is worth.

Shapes: B batch, N channels, S pixels of a side, D embedding.
"""

import torch
from torch import nn

from plsc.models.registry import register

__all__ = ["MobileFaceNet"]

_BOTTLENECKS = (
    # (expansion, channels, blocks, stride of the first), from top to bottom of table 1
    (2, 64, 5, 2),
    (4, 128, 1, 2),
    (2, 128, 6, 1),
    (4, 128, 1, 2),
    (2, 128, 2, 1),
)


def _conv(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.PReLU(outputs),
    )


class _Bottleneck(nn.Module):
    """Expand, look around in each channel alone, shrink without activation; x is added if it fits.

    The inverted residual of MobileNetV2 (arXiv 1801.04381, section 3.3) with PReLU.
    """

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.body = nn.Sequential(
            _conv(inputs, hidden, 1),
            _conv(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x_BNSS: torch.Tensor) -> torch.Tensor:
        y_BNSS: torch.Tensor = self.body(x_BNSS)
        return x_BNSS + y_BNSS if self.is_residual else y_BNSS


@register("mobilefacenet")
class MobileFaceNet(nn.Module):
    """float32 [B, 3, S, S] -> [B, D], S a multiple of 16 (the paper's 112 ends in 7 x 7)."""

    def __init__(self, *, embedding_size: int, image_size: int, dropout: float) -> None:
        super().__init__()
        if image_size % 16:
            raise ValueError(f"image_size must be a multiple of 16, not {image_size}")
        stages: list[nn.Module] = [_conv(3, 64, 3, stride=2), _conv(64, 64, 3, groups=64)]
        inputs = 64
        for expansion, outputs, count, first_stride in _BOTTLENECKS:
            for stride in (first_stride, *[1] * (count - 1)):
                stages.append(_Bottleneck(inputs, outputs, expansion=expansion, stride=stride))
                inputs = outputs
        stages.append(_conv(inputs, 512, 1))
        self.stages = nn.Sequential(*stages)
        self.embed = nn.Sequential(
            nn.Conv2d(512, 512, image_size // 16, groups=512, bias=False),
            nn.BatchNorm2d(512),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(512, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """Return the embeddings, [B, D], not normalized."""
        embeddings_BD: torch.Tensor = self.embed(self.stages(images_B3SS))
        return embeddings_BD
