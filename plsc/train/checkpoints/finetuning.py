"""Beginning a new run with the weights of another one's checkpoint."""

import logging

from plsc.artifacts.checkpoint import Checkpoint
from plsc.conf.schema import PipelineConfig
from plsc.errors import CheckpointError
from plsc.models.restore import load_weights, read_tensors
from plsc.train.checkpoints.resuming import read_rows
from plsc.train.state import TrainState

__all__ = ["finetune"]

log = logging.getLogger(__name__)


def finetune(state: TrainState, config: PipelineConfig) -> None:
    """Take over weights of the checkpoint whose index is ``train.finetune_from``.

    The backbone's weights always; with ``train.finetune_head`` also the class centers (and biases)
    of the class ids that both runs have, while new ones keep their random values. Optimizer state
    and step stay those of a new run.

    Args:
        state: A fresh one; changed.
        config: ``train.finetune_from`` is set.

    Raises:
        StorageError: If a file cannot be read.
        CheckpointError: If it is damaged, or its weights do not fit this run's model.
    """
    checkpoint = Checkpoint.read(config.train.finetune_from)
    load_weights(state.backbone, read_tensors(checkpoint.backbone), checkpoint)
    log.info("fine-tunes the backbone of %s", checkpoint.index_uri)
    if config.train.finetune_head:
        _take_centers(state, checkpoint)


def _take_centers(state: TrainState, checkpoint: Checkpoint) -> None:
    head = state.head
    if checkpoint.embedding_size != head.embedding_size:
        raise CheckpointError(
            f"train.finetune_head: {checkpoint.index_uri} has class centers of embedding_size"
            f" {checkpoint.embedding_size}, this run has {head.embedding_size}: set"
            f" model.embedding_size={checkpoint.embedding_size}, or train.finetune_head=false"
        )
    num_kept = min(checkpoint.num_classes, head.num_classes)
    log.info("keeps the centers of classes 0..%d of %d", num_kept - 1, head.num_classes)
    own = range(head.classes.start, min(head.classes.stop, num_kept))
    if not own:
        return
    live = {name: p.detach()[: len(own)] for name, p in head.named_parameters()}
    rows = read_rows(checkpoint, own, into=live, with_optimizer=False)
    for name in live.keys() & rows.keys():
        live[name].copy_(rows[name])
