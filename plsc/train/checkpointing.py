"""Writing and reading checkpoints: any number of ranks writes one, any number reads it back.

Layout of ``<store_uri>/runs/<run_id>/checkpoints/step-00000200/``: ``backbone.safetensors``, one
``head-<first class>.safetensors`` per rank that owns classes, and ``index.json``, written last.
"""

import logging
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from plsc import storage
from plsc.artifacts.checkpoint import Checkpoint, HeadBlock
from plsc.artifacts.index import Payload
from plsc.conf.schema import PipelineConfig
from plsc.doorway import Stopwatch
from plsc.errors import CheckpointError
from plsc.models import read_tensors
from plsc.train.process_group import Ranks
from plsc.train.state import TrainState

__all__ = ["checkpoints_uri", "latest", "load", "prune", "save"]

log = logging.getLogger(__name__)

_SLOT = "optimizer/{name}/{slot}"


def checkpoints_uri(config: PipelineConfig, run_id: str) -> str:
    """Return the folder of all checkpoints of a run."""
    return storage.join(config.store_uri, "runs", run_id, "checkpoints")


def save(
    state: TrainState,
    config: PipelineConfig,
    ranks: Ranks,
    watch: Stopwatch,
    *,
    epoch: int,
    dataset_uri: str,
    figures: dict[str, float],
) -> Checkpoint:
    """Write a checkpoint of ``state`` and return its index (the same on every rank).

    Collective. A process killed on the way leaves a folder without an index: no checkpoint.

    Raises:
        StorageError: If the store refuses or has no room.
    """
    folder = storage.join(checkpoints_uri(config, config.run_id), f"step-{state.step:08d}")
    block = _write_block(state, folder)
    backbone = _write_backbone(state, folder) if ranks.is_first else None
    written = ranks.gather_objects((backbone, block))
    checkpoint = Checkpoint(
        provenance=watch.provenance(config),
        step=state.step,
        epoch=epoch,
        samples_seen=state.step * config.train.global_batch_size,
        num_classes=state.head.num_classes,
        embedding_size=config.model.embedding_size,
        ranks=ranks.world_size,
        dataset_uri=dataset_uri,
        backbone=next(payload for payload, _ in written if payload),
        head=[block for _, block in written if block],
        figures=figures,
    )
    if ranks.is_first:
        checkpoint.write(storage.join(folder, "index.json"))
    ranks.wait()
    return checkpoint


def latest(config: PipelineConfig, run_id: str) -> Checkpoint | None:
    """Return the newest complete checkpoint of a run, or None if it has none.

    Raises:
        StorageError: If the store cannot be asked.
        CheckpointError: If its index is damaged.
    """
    indexes = _indexes(config, run_id)
    return Checkpoint.read(indexes[-1]) if indexes else None


def prune(config: PipelineConfig) -> None:
    """Remove all but the newest ``keep_checkpoints`` checkpoints of this run, index first.

    Raises:
        StorageError: If the store refuses.
    """
    for index in _indexes(config, config.run_id)[: -config.train.keep_checkpoints]:
        storage.delete(index)
        storage.delete_prefix(index.removesuffix("/index.json"))


def load(state: TrainState, checkpoint: Checkpoint) -> None:
    """Bring weights, optimizer state and step of ``checkpoint`` into ``state``.

    Each rank takes the rows of its own classes, however many ranks wrote them.

    Raises:
        StorageError: If a file cannot be fetched.
        CheckpointError: If a file was altered, or the checkpoint belongs to another model.
    """
    _check_fit(state, checkpoint)
    tensors = read_tensors(checkpoint.backbone)
    weights = {key: value for key, value in tensors.items() if not key.startswith("optimizer/")}
    try:
        state.backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{checkpoint.backbone.uri} does not fit the model: {error}"
        ) from error
    _restore_slots(state, state.backbone, tensors)

    rows = _own_rows(state.head.classes, checkpoint)
    with torch.no_grad():
        for name, parameter in state.head.named_parameters():
            parameter.copy_(rows[name])
    _restore_slots(state, state.head, rows)
    state.step = checkpoint.step


def _check_fit(state: TrainState, checkpoint: Checkpoint) -> None:
    for what, expected, found in (
        ("num_classes", state.head.num_classes, checkpoint.num_classes),
        ("embedding_size", state.head.weight.shape[1], checkpoint.embedding_size),
    ):
        if expected != found:
            raise CheckpointError(
                f"{checkpoint.backbone.uri} has {what} {found}, this run has {expected}:"
                " resume with the data set and model that the run began with"
            )


def _indexes(config: PipelineConfig, run_id: str) -> list[str]:
    found = storage.list_objects(checkpoints_uri(config, run_id) + "/")
    return sorted(info.uri for info in found if info.uri.endswith("/index.json"))


def _write_backbone(state: TrainState, folder: str) -> Payload:
    tensors = dict(state.backbone.state_dict()) | _slots(state, state.backbone)
    return _write(tensors, storage.join(folder, "backbone.safetensors"))


def _write_block(state: TrainState, folder: str) -> HeadBlock | None:
    classes = state.head.classes
    if not classes:
        return None
    tensors = {name: p.detach() for name, p in state.head.named_parameters()}
    uri = storage.join(folder, f"head-{classes.start:010d}.safetensors")
    payload = _write(tensors | _slots(state, state.head), uri)
    return HeadBlock(**dict(payload), first_class=classes.start, num_classes=len(classes))


def _write(tensors: dict[str, torch.Tensor], uri: str) -> Payload:
    with tempfile.TemporaryDirectory(prefix="plsc-checkpoint-") as folder:
        path = Path(folder) / "tensors"
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path)
        storage.upload(path, uri)
        return Payload(uri=uri, size_bytes=path.stat().st_size, sha256=storage.sha256_of_file(path))


def _slots(state: TrainState, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the optimizer's tensors for the parameters of ``module``, by name."""
    return {
        _SLOT.format(name=name, slot=slot): value
        for name, parameter in module.named_parameters()
        for slot, value in state.optimizer.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor)
    }


def _restore_slots(
    state: TrainState, module: torch.nn.Module, tensors: dict[str, torch.Tensor]
) -> None:
    for name, parameter in module.named_parameters():
        prefix = _SLOT.format(name=name, slot="")
        found = {
            key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)
        }
        if found:
            state.optimizer.state[parameter] = {
                slot: tensor if tensor.ndim == 0 else tensor.to(parameter.device)
                for slot, tensor in found.items()
            }


def _own_rows(classes: range, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Return the head's tensors for ``classes``, put together from the blocks that hold them."""
    pieces: dict[str, list[torch.Tensor]] = {}
    for block in sorted(checkpoint.head, key=lambda block: block.first_class):
        start = max(classes.start, block.first_class) - block.first_class
        stop = min(classes.stop, block.first_class + block.num_classes) - block.first_class
        if start >= stop:
            continue
        for name, tensor in read_tensors(block).items():
            pieces.setdefault(name, []).append(tensor if tensor.ndim == 0 else tensor[start:stop])
    rows = {
        name: parts[0] if parts[0].ndim == 0 else torch.cat(parts) for name, parts in pieces.items()
    }
    if classes and len(rows.get("weight", [])) != len(classes):
        raise CheckpointError(
            f"the checkpoint of step {checkpoint.step} holds {len(rows.get('weight', []))} of the"
            f" classes {classes.start}..{classes.stop - 1}: its index is damaged, use an older one"
        )
    return rows
