"""Backbones: images to embeddings. ``build`` makes one by name, ``restore`` brings one back."""

from plsc.models import glyphnet, iresnet, mobilefacenet, vit  # noqa: F401  importing registers them
from plsc.models.embedder import as_embedder
from plsc.models.recompute import checkpoint_gradients
from plsc.models.registry import build, names, register
from plsc.models.restore import read_tensors, restore

__all__ = [
    "as_embedder",
    "build",
    "checkpoint_gradients",
    "names",
    "read_tensors",
    "register",
    "restore",
]
