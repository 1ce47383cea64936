"""Checkpoint: weights and optimizer state of one step, in files that any number of ranks can read.

All tensors are safetensors files (no pickle). ``backbone`` holds the backbone's ``state_dict`` and
its optimizer state under ``optimizer/<parameter>/<slot>``. The class axis of the head is cut into
row blocks, one file each: tensor ``weight`` [rows, D], ``bias`` [rows] if there is one, and
``optimizer/<parameter>/<slot>``, whose first axis is the rows too (or it is one number). A matrix
stored as int8 comes with its scales, ``<name>_scale`` [rows, blocks]. A block knows its first row,
so a reader with another number of ranks takes the rows that it needs from whichever blocks hold
them; blocks are small (some hundred MB), so that it need not fetch much more than that.
"""

from typing import ClassVar

import pydantic

from plsc.artifacts.index import Artifact, Count, Payload, Positive, Uri
from plsc.errors import CheckpointError

__all__ = ["Checkpoint", "HeadBlock"]


class HeadBlock(Payload):
    """Rows ``first_class .. first_class + num_classes - 1`` of the head."""

    first_class: Count
    num_classes: Positive

    @property
    def classes(self) -> range:
        """The class ids whose rows it holds."""
        return range(self.first_class, self.first_class + self.num_classes)


class Checkpoint(Artifact):
    """Index of one checkpoint. The train stage's own index is that of its last one."""

    ERROR: ClassVar[type[CheckpointError]] = CheckpointError

    step: Count
    """Steps done."""
    epoch: Count
    """Epochs done."""
    samples_seen: Count
    num_classes: Positive
    embedding_size: Positive
    ranks: Positive
    """Ranks that wrote it (for information; any number can read it)."""
    dataset_uri: Uri
    """Index of the data set it was trained on."""
    backbone: Payload
    head: list[HeadBlock]
    figures: dict[str, float]
    """Last values: loss, samples_per_s, accuracy of verified benchmarks, ...; ``accuracy`` is their
    mean, and there only if they were verified at exactly this step."""
    loss_scale: dict[str, float] = pydantic.Field(default_factory=dict)
    """State of fp16's loss scale; empty if there is none."""

    @property
    def index_uri(self) -> str:
        """Where its index lies: beside its files."""
        return self.backbone.uri.rpartition("/")[0] + "/index.json"
