"""Runs: what map tasks hand to reduce tasks, samples sorted by (key, label).

A run is one object: first the samples, each a head of 32 bytes and its encoded image, then the
heads again as a table, so that the order of all samples can be found without touching an image::

    head   key 16 bytes, label int64, size of the image uint64 (little-endian)
    run    head, image, head, image, ...; head, head, ...

The *key* of a sample is the beginning of the SHA-256 digest of seed and image. It is uniform, so
that sorting by it shuffles; it depends on nothing but content, so that neither the form of the
input nor the order of its files, tasks or workers matters; equal images have equal keys, so that
they meet; and whoever reads the sample can tell whether it arrived whole.
"""

import hashlib
import mmap
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plsc.artifacts.index import Value
from plsc.errors import RecordError, ShardError

__all__ = [
    "HEAD",
    "KEY_BYTES",
    "SAMPLE_BYTES",
    "Run",
    "RunBuffer",
    "Sample",
    "key_function",
    "samples",
    "sorted_by",
]

KEY_BYTES = 16

SAMPLE_BYTES = 256
"""What a sample takes in memory besides its image while runs are sorted and gathered."""

HEAD = np.dtype([("high", ">u8"), ("low", ">u8"), ("label", "<i8"), ("size_bytes", "<u8")])
"""One row of a run's table; the two halves of the key are numbers that sort as its bytes do."""


class Run(Value):
    """One run, as the summary of its map task names it."""

    uri: str
    num_samples: int
    table_start: int
    """Where the samples end and the table begins, in bytes."""

    @property
    def size_bytes(self) -> int:
        """Size of the whole object."""
        return self.table_start + self.num_samples * HEAD.itemsize


class Sample(NamedTuple):
    """One sample of a run."""

    key: bytes
    label: int
    image: memoryview


def key_function(seed: int) -> Callable[[bytes | memoryview], bytes]:
    """Return the function that gives an image's key, 16 bytes."""
    seeded = hashlib.sha256(b"plsc sample key, seed %d\0" % seed)

    def key_of(image: bytes | memoryview) -> bytes:
        digest = seeded.copy()
        digest.update(image)
        return digest.digest()[:KEY_BYTES]

    return key_of


def sorted_by(rows: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """Return the order of rows of ``HEAD`` by (key, label), int64 [n]; equal ones stay in order."""
    high, low = (rows[half].astype(np.uint64) for half in ("high", "low"))
    return np.lexsort((rows["label"], low, high))


class RunBuffer:
    """Collects the samples of one run in memory that is set aside once."""

    def __init__(self, capacity_bytes: int) -> None:
        """Set ``capacity_bytes`` aside for images (a page counts when it is first used)."""
        self._content = mmap.mmap(-1, capacity_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._content.madvise(mmap.MADV_HUGEPAGE)
        self._capacity = capacity_bytes
        self._clear()

    def _clear(self) -> None:
        self._keys = bytearray()
        self._labels = array("q")
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._labels)

    def has_room(self, image: bytes) -> bool:
        """Return whether ``image`` fits beside what is there."""
        taken = self._ends[-1] + len(self._labels) * SAMPLE_BYTES
        return taken + len(image) <= self._capacity

    def append(self, key: bytes, label: int, image: bytes) -> None:
        """Add a sample for which there is room.

        Raises:
            RecordError: If the image is larger than the whole buffer.
        """
        start = self._ends[-1]
        end = start + len(image)
        if end > self._capacity:
            raise RecordError(
                f"an image of {len(image)} bytes does not fit into the memory for one run,"
                f" {self._capacity} bytes: raise preprocess.memory_mib"
            )
        self._content[start:end] = image
        self._keys += key
        self._labels.append(label)
        self._ends.append(end)

    def take(self) -> tuple[bytes, int]:
        """Return the run's content and where its table begins, and be empty again."""
        ends = np.frombuffer(self._ends, np.int64)
        heads = np.empty(len(self), HEAD)
        keys = np.frombuffer(self._keys, ">u8").reshape(-1, 2)
        heads["high"], heads["low"] = keys[:, 0], keys[:, 1]
        heads["label"], heads["size_bytes"] = self._labels, np.diff(ends)
        order = sorted_by(heads)
        table = heads[order].tobytes()
        content = memoryview(self._content)
        pieces: list[bytes | memoryview] = []
        width = HEAD.itemsize
        for place, (start, end) in enumerate(zip(ends[order], ends[order + 1], strict=True)):
            pieces.append(table[place * width : (place + 1) * width])
            pieces.append(content[start:end])
        pieces.append(table)
        joined = b"".join(pieces)
        self._clear()
        return joined, len(joined) - len(table)


def samples(content: bytes, where: str) -> Iterator[Sample]:
    """Yield the samples in ``content``, a part of a run that begins and ends between two of them.

    Raises:
        ShardError: If it does not hold whole samples.
    """
    view = memoryview(content)
    position, width = 0, HEAD.itemsize
    while position < len(content):
        start = position + width
        size_bytes = int.from_bytes(content[start - 8 : start], "little")
        end = start + size_bytes
        if end > len(content):
            raise ShardError(
                f"{where}: expected whole samples, found {len(content)} bytes that end in the"
                " middle of one: a temporary object was altered: run preprocess again"
            )
        label = int.from_bytes(content[start - 16 : start - 8], "little", signed=True)
        yield Sample(content[position : position + KEY_BYTES], label, view[start:end])
        position = end
