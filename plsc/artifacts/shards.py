"""ShardSet: samples in global random order, cut into Arrow IPC files, between preprocess and train.

A shard is one Arrow IPC *file* (random access, memory-mapped, uncompressed) with the columns

    image  large_binary   the JPEG or PNG bytes as they came
    label  int64          0 .. num_classes - 1
    key    uint64         the sample's place in the global shuffle (unique; ascending over all shards)

Shards differ in size by at most one sample. The index lists them with rows, bytes and SHA-256 digest.
"""

from typing import ClassVar

from plsc.artifacts.index import Artifact, Payload, Value
from plsc.errors import ShardError

__all__ = ["Quarantine", "Shard", "ShardSet"]


class Shard(Payload):
    """One Arrow IPC file."""

    num_samples: int


class Quarantine(Value):
    """The bad rows of the input: JSON lines with ``uri``, ``line``, ``reason`` and the row's beginning."""

    uri: str
    """Where they lie; empty when there are none."""
    num_rows: int
    reasons: dict[str, int]
    """Number of rows per kind of reason."""


class ShardSet(Artifact):
    """Index of a data set."""

    ERROR: ClassVar[type[ShardError]] = ShardError

    uri: str
    """Where this index lies; the shards lie beside it."""
    num_samples: int
    num_classes: int
    num_empty_classes: int
    """Classes without a sample."""
    images_per_class: dict[int, int]
    """Histogram: number of images -> number of classes that have so many (0 included)."""
    image_size: int
    column_order: str
    """Which order of columns the input had: image_label, label_image, mixed, or files."""
    shards: list[Shard]
    quarantine: Quarantine
