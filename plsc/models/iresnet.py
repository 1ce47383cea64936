"""iResNet: the residual networks of the face-recognition papers.

Pre-activated 3x3 bottleneck-free blocks with PReLU, one extra batch norm, a fully connected
embedding with batch norm: the "improved" residual unit of ArcFace (arXiv 1801.07698, section 3.1,
"BN-Dropout-FC-BN" output).

Shapes: B batch, N channels, S pixels of a side, D embedding.
"""

from collections.abc import Callable

import torch
from torch import nn

from plsc.models.registry import register

__all__ = ["IResNet"]

_BLOCKS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet152": (3, 8, 36, 3),
}


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class _Block(nn.Module):
    """x + BN(conv(PReLU(BN(conv(BN(x)))))), the shortcut projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            _conv3x3(inputs, outputs),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            _conv3x3(outputs, outputs, stride),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x_BNSS: torch.Tensor) -> torch.Tensor:
        shortcut: torch.Tensor = self.shortcut(x_BNSS)
        residual: torch.Tensor = self.residual(x_BNSS)
        return shortcut + residual


class IResNet(nn.Module):
    """An iResNet: float32 [B, 3, S, S] -> [B, D], S a multiple of 16."""

    def __init__(
        self, blocks: tuple[int, ...], *, embedding_size: int, image_size: int, dropout: float
    ) -> None:
        super().__init__()
        if image_size % 16:
            raise ValueError(f"image_size must be a multiple of 16, not {image_size}")
        self.stem = nn.Sequential(_conv3x3(3, 64), nn.BatchNorm2d(64), nn.PReLU(64))
        stages: list[nn.Module] = []
        inputs = 64
        for count, outputs in zip(blocks, (64, 128, 256, 512), strict=True):
            stages.append(_Block(inputs, outputs, stride=2))
            stages += [_Block(outputs, outputs, stride=1) for _ in range(count - 1)]
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.embed = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(512 * (image_size // 16) ** 2, embedding_size),
            nn.BatchNorm1d(embedding_size),
        )
        self._initialize()

    def _initialize(self) -> None:
        """Draw weights as the published models do: normal of 0.1, an output norm without scale."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)
        norm = self.embed[-1]
        assert isinstance(norm, nn.BatchNorm1d)
        norm.weight.requires_grad = False

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """Return the embeddings, [B, D], not normalized."""
        embeddings_BD: torch.Tensor = self.embed(self.stages(self.stem(images_B3SS)))
        return embeddings_BD


def _register(name: str, blocks: tuple[int, ...]) -> None:
    def builder(*, embedding_size: int, image_size: int, dropout: float) -> nn.Module:
        return IResNet(
            blocks, embedding_size=embedding_size, image_size=image_size, dropout=dropout
        )

    decorate: Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]] = register(name)
    decorate(builder)


for _name, _counts in _BLOCKS.items():
    _register(_name, _counts)
