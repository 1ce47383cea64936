"""ShardSet: samples in global random order, cut into Arrow IPC files, between preprocess and train.

A shard is one Arrow IPC *file* (random access, memory-mapped, uncompressed) of one record batch
with the columns

    image  large_binary           the image's encoded bytes as they came
    label  int64                  0 .. num_classes - 1
    key    fixed_size_binary[16]  its place in the global shuffle: a digest of seed and image

Keys ascend over all shards; equal images have equal keys. Shards differ in size by at most one
sample. The index lists them with rows, bytes and SHA-256 digest.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pydantic

from plsc import storage
from plsc.artifacts.index import Artifact, Count, Payload, Positive, Uri, Value
from plsc.errors import ShardError

__all__ = [
    "Duplicates",
    "LeftOut",
    "Quarantine",
    "Shard",
    "ShardReader",
    "ShardSet",
    "fetch_shard",
    "shard_content",
]

_SCHEMA = pa.schema(
    [
        pa.field("image", pa.large_binary(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("key", pa.binary(16), nullable=False),
    ]
)


class Shard(Payload):
    """One Arrow IPC file."""

    num_samples: Positive


class Quarantine(Value):
    """The bad rows of the input: JSON lines of ``uri, line, offset, reason, detail, row``."""

    uri: Uri
    """Where they lie; empty when there are none."""
    num_rows: Count
    reasons: dict[str, Count]
    """Number of rows per kind of reason."""


class Duplicates(Value):
    """Images that occur more than once in the input, byte for byte."""

    num_repeated: Count
    """Rows whose image and label an earlier row has."""
    num_removed: Count
    """How many of these were left out: all with ``preprocess.deduplicate``, else none."""
    num_conflicting: Count
    """Different images that occur under more than one label (all of them are kept)."""


class LeftOut(Value):
    """Classes with fewer images than ``preprocess.min_images_per_class``."""

    num_classes: Count
    num_rows: Count


class ShardSet(Artifact):
    """Index of a data set.

    A data set is content-addressed: its index and shards lie in one folder that any run with the
    same input and settings finds again. The index that a run hands on is a copy of that one with
    the run's own provenance.

    Every row of the input is a sample, blank, in the quarantine, a removed duplicate, or one of a
    class that was left out.
    """

    VERSION: ClassVar[int] = 2
    ERROR: ClassVar[type[ShardError]] = ShardError

    uri: Uri
    """Where the data set's index lies; the shards lie beside it."""
    layout: str
    """What the input was: records, image_files, class_folders, record_io, table or tar."""
    column_order: str
    """The columns of base64 records: image_label, label_image or mixed; else empty."""
    seed: int
    """The seed in the samples' keys: the same seed puts the same samples in the same order."""
    num_samples: Positive
    num_blank_rows: Count
    """Rows of the input that held nothing."""
    num_classes: Positive
    num_empty_classes: Count
    """Classes without a sample."""
    images_per_class: dict[Count, Positive]
    """Histogram: number of images -> number of classes that have so many (0 included)."""
    classes: Payload
    """Arrow IPC file of the classes that have samples: label int64 (ascending), name large_string
    (the input's label), num_images int64."""
    image_size: Positive
    shards: Annotated[list[Shard], pydantic.Field(min_length=1)]
    quarantine: Quarantine
    duplicates: Duplicates
    left_out: LeftOut


def shard_content(
    images: Sequence[bytes | memoryview],
    labels: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
    *,
    memory: memoryview | None = None,
) -> memoryview:
    """Return the bytes of a shard; the same samples give the same bytes.

    Args:
        images: Encoded images, n of them.
        labels: int64 [n].
        keys: uint64 [n, 2], the more significant half first.
        memory: Where to make them: twice as much as the images have, and 64 bytes a sample and a
            few KiB more. None takes fresh memory.
    """
    ends = np.cumsum([0, *map(len, images)], dtype=np.int64)
    num_bytes = int(ends[-1])
    if memory is None:
        memory = memoryview(bytearray(2 * num_bytes + 64 * len(images) + 8192))
    for image, start, end in zip(images, ends.tolist(), ends[1:].tolist(), strict=False):
        memory[start:end] = image
    packed = np.ascontiguousarray(keys, dtype=">u8").tobytes()
    columns = [
        _array(pa.large_binary(), len(images), ends, memory[:num_bytes]),
        pa.array(labels, pa.int64()),
        _array(pa.binary(16), len(images), packed),
    ]
    batch = pa.record_batch(columns, schema=_SCHEMA)
    counter = pa.MockOutputStream()
    _write(counter, batch)
    aligned = -(-num_bytes // 64) * 64
    content = memory[aligned : aligned + counter.size()]
    _write(pa.FixedSizeBufferWriter(pa.py_buffer(content)), batch)
    return content


def _array(
    kind: pa.DataType, length: int, *buffers: bytes | memoryview | npt.NDArray[np.int64]
) -> pa.Array:
    """Return an array without nulls over buffers that are not copied."""
    return pa.Array.from_buffers(kind, length, [None, *(pa.py_buffer(one) for one in buffers)])


def _write(sink: pa.NativeFile, batch: pa.RecordBatch) -> None:
    with pa.ipc.new_file(sink, _SCHEMA) as writer:
        writer.write_batch(batch)


class ShardReader:
    """Random access to a shard on this disk, memory-mapped.

    The columns' buffers are read directly rather than through Arrow's scalars: 1.2 million random
    reads per CPU second instead of 0.27 million (``benchmarks/loader.py``). Images are views of the
    mapped file; they keep it mapped.
    """

    def __init__(self, path: Path) -> None:
        """Map the shard ``path``.

        Raises:
            ShardError: If it is not there, cut off, damaged, or no shard.
        """
        batch = _map(path)
        _, offsets, data = batch.column("image").buffers()
        self._offsets = memoryview(offsets).cast("B").cast("q")
        self._data = memoryview(data).cast("B").toreadonly() if data else memoryview(b"")
        self._size: int = batch.num_rows
        self._label: memoryview[int] = (
            memoryview(batch.column("label").buffers()[1]).cast("B").cast("q")
        )
        self.labels: npt.NDArray[np.int64] = batch.column("label").to_numpy()
        """int64 [n], read-only."""
        keys = np.frombuffer(batch.column("key").buffers()[1], ">u8", count=2 * batch.num_rows)
        self.keys: npt.NDArray[np.uint64] = keys.reshape(-1, 2)
        """uint64 (big-endian) [n, 2], read-only, ascending, the more significant half first."""

    def __len__(self) -> int:
        return self._size

    def image(self, row: int) -> memoryview:
        """Return the encoded image of ``row``, 0 <= row < n, without copying it.

        Raises:
            IndexError: If there is no such row.
        """
        self._check(row)
        return self._data[self._offsets[row] : self._offsets[row + 1]]

    def label(self, row: int) -> int:
        """Return the label of ``row``, 0 <= row < n.

        Raises:
            IndexError: If there is no such row.
        """
        self._check(row)
        return self._label[row]

    def _check(self, row: int) -> None:
        if not 0 <= row < self._size:
            raise IndexError(f"row {row} of a shard of {self._size} samples")


def _map(path: Path) -> pa.RecordBatch:
    advice = "fetch it again, or run preprocess again"
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
        if not reader.schema.equals(_SCHEMA) or reader.num_record_batches != 1:
            raise ShardError(
                f"{path}: expected one batch of image, label and key, found"
                f" {reader.num_record_batches} of {reader.schema.names}: check which file was given"
            )
        batch = reader.get_batch(0)
        batch.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{path}: expected a whole shard, but {error}: {advice}") from error
    if batch.num_rows == 0 or any(column.null_count for column in batch.columns):
        raise ShardError(f"{path}: expected samples, none of them null, found others: {advice}")
    return batch


def fetch_shard(shard: Shard, folder: Path) -> Path:
    """Return a local copy of ``shard`` in ``folder`` whose content is what the index says.

    A copy that is there already and has the right digest is used again (checking reads all of it,
    at some GB/s). Processes may share a folder.

    Raises:
        StorageError: If it cannot be downloaded.
        ShardError: If what the store holds is not what the index says.
    """
    path = folder / f"{shard.sha256}.arrow"
    if path.is_file() and storage.sha256_of_file(path) == shard.sha256:
        return path
    storage.download(shard.uri, path)
    found = storage.sha256_of_file(path)
    if found != shard.sha256:
        size_bytes = path.stat().st_size
        path.unlink(missing_ok=True)
        raise ShardError(
            f"{shard.uri}: expected {shard.size_bytes} bytes with SHA-256 {shard.sha256}, found"
            f" {size_bytes} with {found}: it was altered: delete"
            f" {shard.uri.rpartition('/')[0]} and run preprocess again"
        )
    return path
