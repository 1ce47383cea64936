"""A small vision transformer: images as sequences of patches (arXiv 2010.11929).

Pre-norm blocks in the width of DeiT-Ti (arXiv 2012.12877, table 1: 192 wide, 12 deep, 3 heads). The
patches' mean, which serves as well as a class token (arXiv 2010.11929, appendix D.3), ends in the
fully connected layer and batch norm of the other backbones.

Shapes: B batch, S pixels of a side, T patches, W width, H heads, D embedding.
"""

import torch
from torch import nn
from torch.nn import functional

from plsc.models.registry import register

__all__ = ["VisionTransformer"]

_WIDTH, _DEPTH, _HEADS = 192, 12, 3


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)

    def forward(self, x_BTW: torch.Tensor) -> torch.Tensor:
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, W / H]
            for part in self.project_in(x_BTW).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        y_BTW: torch.Tensor = self.project_out(mixed.transpose(1, 2).flatten(2))
        return y_BTW


class _Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): arXiv 2010.11929, equations 2 and 3."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), _Attention(width, heads))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x_BTW: torch.Tensor) -> torch.Tensor:
        x_BTW = x_BTW + self.attention(x_BTW)
        y_BTW: torch.Tensor = x_BTW + self.mlp(x_BTW)
        return y_BTW


@register("vit_tiny")
class VisionTransformer(nn.Module):
    """float32 [B, 3, S, S] -> [B, D], S a multiple of the patches' side.

    That is 8 pixels (faces of 112 x 112 become 14 x 14 patches, as many as in the papers), and 4
    for images below 64 pixels, which would be left with too few.
    """

    def __init__(self, *, embedding_size: int, image_size: int, dropout: float) -> None:
        super().__init__()
        patch_size = 8 if image_size >= 64 else 4
        if image_size % patch_size:
            raise ValueError(f"image_size must be a multiple of {patch_size}, not {image_size}")
        self.patches = nn.Conv2d(3, _WIDTH, patch_size, stride=patch_size)
        self.positions_TW = nn.Parameter(torch.empty((image_size // patch_size) ** 2, _WIDTH))
        self.stages = nn.Sequential(*(_Block(_WIDTH, _HEADS) for _ in range(_DEPTH)))
        self.norm = nn.LayerNorm(_WIDTH)
        self.embed = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(_WIDTH, embedding_size),
            nn.BatchNorm1d(embedding_size),
        )
        self._initialize()

    def _initialize(self) -> None:
        """Draw weights as DeiT does: a truncated normal of 0.02, biases zero."""
        nn.init.trunc_normal_(self.positions_TW, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """Return the embeddings, [B, D], not normalized."""
        patches_BTW = self.patches(images_B3SS).flatten(2).transpose(1, 2)
        tokens_BTW = self.norm(self.stages(patches_BTW + self.positions_TW))
        embeddings_BD: torch.Tensor = self.embed(tokens_BTW.mean(dim=1))
        return embeddings_BD
