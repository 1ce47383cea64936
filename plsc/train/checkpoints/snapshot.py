"""A snapshot: the training state in local files, taken between two steps.

What is in the files stays as it is while training goes on; bringing them to the store is another
matter (``upload``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from plsc.errors import StorageError
from plsc.train.checkpoints.slots import slots
from plsc.train.state import TrainState

__all__ = ["LocalFile", "take_snapshot"]

_ROWS_PER_BLOCK = 1 << 16
"""Classes in one file of the head: 256 MiB with D = 512, fp32 and momentum. On a GPU's way to the
file no more than this is held in the host's memory."""


@dataclass(frozen=True)
class LocalFile:
    """One file of a snapshot; it bears the name that it will have in the store."""

    path: Path
    classes: range | None = None
    """Whose rows it holds; None: it is the backbone."""


def take_snapshot(state: TrainState, folder: Path, *, with_backbone: bool) -> list[LocalFile]:
    """Write what this rank has to write of ``state`` into ``folder``, which must not exist.

    Args:
        state: Not changed, and no longer needed when this returns.
        folder: Where to write.
        with_backbone: Whether this is the rank that writes the backbone, which all have.

    Raises:
        StorageError: If the disk has no room.
    """
    try:
        folder.mkdir()
        return list(_write(state, folder, with_backbone=with_backbone))
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"{folder}: the checkpoint could not be written to this machine's disk: {error}: make"
            " room there, or set TMPDIR to another folder"
        ) from error


def _write(state: TrainState, folder: Path, *, with_backbone: bool) -> Iterator[LocalFile]:
    if with_backbone:
        tensors = dict(state.backbone.state_dict()) | slots(state.optimizer, state.backbone)
        yield LocalFile(_save(tensors, folder / "backbone.safetensors"))
    if not state.head.is_writer:
        return
    rows = state.head.state_rows() | slots(state.optimizer, state.head)
    classes = state.head.classes
    for start in range(0, len(classes), _ROWS_PER_BLOCK):
        own = classes[start : start + _ROWS_PER_BLOCK]
        part = slice(start, start + len(own))
        block = {name: rows[name][part] if rows[name].ndim else rows[name] for name in rows}
        path = folder / f"head-{own.start:010d}.safetensors"
        yield LocalFile(_save(block, path), own)


def _save(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path)
    return path
