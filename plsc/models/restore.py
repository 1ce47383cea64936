"""A backbone back from a checkpoint, every byte checked against the index."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from plsc import storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.index import Payload
from plsc.conf.schema import ModelConfig
from plsc.errors import CheckpointError, StorageError
from plsc.models.registry import build

__all__ = ["load_weights", "opened", "read_tensors", "restore"]


@contextmanager
def opened(payload: Payload) -> Iterator[Any]:
    """Open one safetensors file of a checkpoint, after its digest was checked.

    Gives what ``safetensors.safe_open`` gives: tensors, or slices of their rows, are read from disk
    when they are asked for.

    Raises:
        StorageError: If the store does not give the file.
        CheckpointError: If it is missing, if its digest is not that of the index, or if it is no
            safetensors file.
    """
    with tempfile.TemporaryDirectory(prefix="plsc-restore-") as folder:
        path = Path(folder) / "tensors"
        _download(payload, path)
        found = storage.sha256_of_file(path)
        if found != payload.sha256:
            raise CheckpointError(
                f"{payload.uri} was altered: the index says SHA-256 {payload.sha256},"
                f" the file has {found}: restore the file, or use another checkpoint of the run"
            )
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise CheckpointError(f"{payload.uri} is no safetensors file: {error}") from error


def read_tensors(payload: Payload) -> dict[str, torch.Tensor]:
    """Return the tensors of one safetensors file of a checkpoint.

    Raises:
        StorageError, CheckpointError: As ``opened``.
    """
    with opened(payload) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping


def restore(checkpoint: Checkpoint) -> nn.Module:
    """Return the backbone of ``checkpoint`` in eval mode, built as its run was configured.

    Raises:
        StorageError: If its file cannot be fetched.
        CheckpointError: If the file is missing, altered, or does not fit the model.
    """
    config = checkpoint.provenance.config
    backbone = build(ModelConfig(**config["model"]), config["image_size"])
    load_weights(backbone, read_tensors(checkpoint.backbone), checkpoint)
    return backbone.eval()


def load_weights(
    backbone: nn.Module, tensors: dict[str, torch.Tensor], checkpoint: Checkpoint
) -> None:
    """Copy the weights among ``tensors``, the backbone's file of ``checkpoint``, to ``backbone``.

    Raises:
        CheckpointError: If they do not fit; it names the model that they were trained as.
    """
    weights = {key: value for key, value in tensors.items() if not key.startswith("optimizer/")}
    try:
        backbone.load_state_dict(weights)
    except RuntimeError as error:
        trained = checkpoint.provenance.config
        raise CheckpointError(
            f"{checkpoint.backbone.uri} does not fit this model. Its run had"
            f" model.name={trained['model']['name']}"
            f" model.embedding_size={trained['model']['embedding_size']}"
            f" image_size={trained['image_size']}: set these. {error}"
        ) from error


def _download(payload: Payload, path: Path) -> None:
    try:
        storage.download(payload.uri, path)
    except StorageError as error:
        if storage.exists(payload.uri):
            raise
        raise CheckpointError(
            f"{payload.uri} is missing: the index names it, with {payload.size_bytes} bytes:"
            " restore the file, or use another checkpoint of the run"
        ) from error
