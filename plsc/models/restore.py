"""A backbone back from a checkpoint, every byte checked against the index."""

import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from plsc import storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.index import Payload
from plsc.conf.schema import ModelConfig
from plsc.errors import CheckpointError
from plsc.models.registry import build

__all__ = ["read_tensors", "restore"]


def read_tensors(payload: Payload) -> dict[str, torch.Tensor]:
    """Return the tensors of one safetensors file of a checkpoint.

    Raises:
        StorageError: If the file cannot be fetched.
        CheckpointError: If its digest is not that of the index, or if it is no safetensors file.
    """
    with tempfile.TemporaryDirectory(prefix="plsc-checkpoint-") as folder:
        path = Path(folder) / "tensors"
        storage.download(payload.uri, path)
        found = storage.sha256_of_file(path)
        if found != payload.sha256:
            raise CheckpointError(
                f"{payload.uri} was altered: the index says SHA-256 {payload.sha256},"
                f" the file has {found}: restore the file, or use an older checkpoint of the run"
            )
        try:
            tensors: dict[str, torch.Tensor] = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{payload.uri} is no safetensors file: {error}") from error
        return tensors


def restore(checkpoint: Checkpoint) -> nn.Module:
    """Return the backbone of ``checkpoint`` in eval mode, built as its run was configured.

    Raises:
        StorageError: If its file cannot be fetched.
        CheckpointError: If the file was altered or does not fit the model.
    """
    config = checkpoint.provenance.config
    backbone = build(ModelConfig(**config["model"]), config["image_size"])
    weights = {
        key: value
        for key, value in read_tensors(checkpoint.backbone).items()
        if not key.startswith("optimizer/")
    }
    try:
        backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{checkpoint.backbone.uri} does not fit model {config['model']['name']}: {error}"
        ) from error
    return backbone.eval()
