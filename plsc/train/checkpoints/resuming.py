"""Going on from a checkpoint: any number of ranks takes back what any number wrote."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch

from plsc.artifacts.checkpoint import Checkpoint, HeadBlock
from plsc.conf.schema import PipelineConfig
from plsc.errors import CheckpointError
from plsc.models.restore import load_weights, opened, read_tensors
from plsc.train.checkpoints.retention import checkpoints_uri, index_uris
from plsc.train.checkpoints.slots import take_slots
from plsc.train.state import TrainState

__all__ = ["load", "read_rows", "resume"]

log = logging.getLogger(__name__)


def resume(state: TrainState, config: PipelineConfig) -> Checkpoint | None:
    """Bring the checkpoint that ``config`` asks for into ``state`` and return it.

    It is that of ``train.resume_step``, or the newest, of ``train.resume_run``, or of this run. A
    run that was begun from another, and has a checkpoint of its own by now, goes on from its own
    newest: it was interrupted, and is tried again.

    Returns:
        None if nothing was asked for and this run has no checkpoint yet.

    Raises:
        StorageError: If the store cannot be asked.
        CheckpointError: If what was asked for is not there, is damaged (an older checkpoint is
            offered then, if there is one), or belongs to another model.
    """
    run_id, wanted = config.train.resume_run or config.run_id, config.train.resume_step
    if run_id != config.run_id and index_uris(config, config.run_id):
        run_id, wanted = config.run_id, 0
    indexes = index_uris(config, run_id)
    step = _chosen_step(config, run_id, wanted, list(indexes))
    if step is None:
        return None
    older = [other for other in indexes if other < step]
    with _offering(older):
        checkpoint = Checkpoint.read(indexes[step])
    _check_fit(state, config, checkpoint)
    with _offering(older):
        load(state, checkpoint)
    log.info("resumes run %s from step %d", run_id, state.step)
    return checkpoint


def load(state: TrainState, checkpoint: Checkpoint) -> None:
    """Bring weights, optimizer state and step of ``checkpoint`` into ``state``.

    Each rank takes the rows of its own classes, however many ranks wrote them.

    Raises:
        StorageError: If the store does not give a file.
        CheckpointError: If a file is missing or altered, or does not fit the model.
    """
    tensors = read_tensors(checkpoint.backbone)
    load_weights(state.backbone, tensors, checkpoint)
    take_slots(state.optimizer, state.backbone, tensors)
    if state.head.classes:
        live = state.head.state_rows()
        rows = read_rows(checkpoint, state.head.classes, into=live)
        _check_complete(state, checkpoint, rows)
        take_slots(state.optimizer, state.head, rows)
        state.head.load_rows(rows)
    if state.loss_scale and checkpoint.loss_scale:
        state.loss_scale.load(checkpoint.loss_scale)
    state.step = checkpoint.step


def read_rows(
    checkpoint: Checkpoint,
    classes: range,
    *,
    into: dict[str, torch.Tensor],
    with_optimizer: bool = True,
) -> dict[str, torch.Tensor]:
    """Return the head's tensors for ``classes``, put together from the blocks that hold them.

    Args:
        checkpoint: Whose.
        classes: Which rows, at least one.
        into: Tensors to write to, those of them that have the name, the shape and the dtype of a
            stored one; memory is taken for the others only.
        with_optimizer: Whether the optimizer's tensors are wanted.

    Returns:
        Tensors [len(classes), ...], or [] where the blocks hold one number, as they were stored.

    Raises:
        StorageError: If the store does not give a file.
        CheckpointError: If a file is missing or altered, or blocks do not fit together.
    """
    rows: dict[str, torch.Tensor] = {}
    filled = classes.start
    for block in sorted(checkpoint.head, key=lambda block: block.first_class):
        shared = range(max(filled, block.classes.start), min(classes.stop, block.classes.stop))
        if not shared or shared.start != filled:
            continue
        source = slice(shared.start - block.first_class, shared.stop - block.first_class)
        target = slice(shared.start - classes.start, shared.stop - classes.start)
        for name, values in _block_rows(block, source, rows.keys(), with_optimizer=with_optimizer):
            if values.ndim == 0:
                rows[name] = values.clone()
                continue
            if name not in rows:
                rows[name] = _room(into.get(name), values, len(classes))
            rows[name][target] = values
        filled = shared.stop
    if filled != classes.stop:
        raise CheckpointError(
            f"the checkpoint of step {checkpoint.step} has no row of class {filled}, expected"
            f" {classes.start}..{classes.stop - 1}: {checkpoint.index_uri} is damaged, use another"
            " checkpoint of the run"
        )
    return rows


def _block_rows(
    block: HeadBlock, part: slice, expected: Collection[str], *, with_optimizer: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a block by name, those with rows cut to ``part``."""
    with opened(block) as file:
        names = [
            name
            for name in file.keys()  # noqa: SIM118  it is no mapping
            if with_optimizer or not name.startswith("optimizer/")
        ]
        if expected and set(names) != set(expected):
            raise CheckpointError(
                f"{block.uri} holds {sorted(names)}, another block {sorted(expected)}: the index is"
                " damaged, use another checkpoint of the run"
            )
        for name in names:
            is_number = not file.get_slice(name).get_shape()
            yield name, file.get_tensor(name) if is_number else file.get_slice(name)[part]


def _room(given: torch.Tensor | None, values: torch.Tensor, num_rows: int) -> torch.Tensor:
    shape = (num_rows, *values.shape[1:])
    if given is not None and given.shape == shape and given.dtype == values.dtype:
        return given
    return values.new_empty(shape)


def _check_complete(
    state: TrainState, checkpoint: Checkpoint, rows: dict[str, torch.Tensor]
) -> None:
    missing = {name for name, _ in state.head.named_parameters()} - set(rows)
    if missing:
        raise CheckpointError(
            f"{checkpoint.index_uri} has no {', '.join(sorted(missing))} of the classes, which"
            " this run's loss needs: resume with the train.head.loss that the run began with"
        )


def _chosen_step(config: PipelineConfig, run_id: str, wanted: int, steps: list[int]) -> int | None:
    """Return the step to go on from; None: none was asked for, and there is none."""
    folder = checkpoints_uri(config, run_id)
    if wanted and wanted not in steps:
        there = f"those of steps {', '.join(map(str, steps))}" if steps else "none"
        raise CheckpointError(
            f"train.resume_step={wanted}: expected that checkpoint under {folder}, found {there}:"
            " choose one that is there, or 0 for the newest"
        )
    if config.train.resume_run and not steps:
        raise CheckpointError(
            f"train.resume_run={run_id}: expected a checkpoint under {folder}, found none:"
            " check the run's id, or start without resuming"
        )
    return wanted or (steps[-1] if steps else None)


@contextmanager
def _offering(older: list[int]) -> Iterator[None]:
    """Add to the message about a damaged checkpoint what can be done instead."""
    try:
        yield
    except CheckpointError as error:
        if not older:
            raise CheckpointError(f"{error}; there is no older checkpoint") from error
        raise CheckpointError(
            f"{error}; an older checkpoint of step {older[-1]} is there: resume with"
            f" train.resume_step={older[-1]}"
        ) from error


def _check_fit(state: TrainState, config: PipelineConfig, checkpoint: Checkpoint) -> None:
    trained = checkpoint.provenance.config
    optimizer = config.train.optimizer.name.value
    for what, expected, found in (
        ("model.name", config.model.name, trained["model"]["name"]),
        ("embedding_size", state.head.embedding_size, checkpoint.embedding_size),
        ("num_classes", state.head.num_classes, checkpoint.num_classes),
        ("optimizer", optimizer, trained["train"]["optimizer"]["name"]),
    ):
        if expected != found:
            raise CheckpointError(
                f"{checkpoint.index_uri} has {what} {found}, this run has {expected}: resume with"
                " the settings and data that the run began with; or fine-tune from it in a new run:"
                f" train.finetune_from={checkpoint.index_uri} (with train.finetune_head=true class"
                " centers are kept by class id)"
            )
