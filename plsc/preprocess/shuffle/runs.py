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
import struct
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

_LABEL_AND_SIZE = struct.Struct("<qQ")

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


def sorted_by(
    high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the order of samples by (key, label), int64 [n]; the keys come in two halves.

    The upper halves hardly ever tie, except for equal images: one fast sort, and one of the ties.
    """
    order = np.argsort(high)
    in_order = high[order]
    ties = np.zeros(len(order), np.bool_)
    ties[1:] = in_order[1:] == in_order[:-1]
    ties[:-1] |= ties[1:]
    tied = order[ties]
    order[ties] = tied[np.lexsort((labels[tied], low[tied], high[tied]))]
    return order


class RunBuffer:
    """Collects the samples of one run, and sorts them, in given memory."""

    def __init__(self, memory: memoryview) -> None:
        """Take memory: half of it for images as they come, half for the sorted run."""
        half = len(memory) // 2
        self._content, self._sorted = memory[:half], memory[half:]
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
        return taken + len(image) + SAMPLE_BYTES <= len(self._content)

    def append(self, key: bytes, label: int, image: bytes) -> None:
        """Add a sample for which there is room.

        Raises:
            RecordError: If the image is too large even for an empty buffer.
        """
        start = self._ends[-1]
        end = start + len(image)
        if end + SAMPLE_BYTES > len(self._content):
            raise RecordError(
                f"an image of {len(image)} bytes does not fit into the memory for one run,"
                f" {len(self._content)} bytes: raise preprocess.memory_mib"
            )
        self._content[start:end] = image
        self._keys += key
        self._labels.append(label)
        self._ends.append(end)

    def take(self, *, deduplicate: bool = False) -> "Taken":
        """Return the run, and be empty again; its content is gone when the next one is taken.

        With ``deduplicate`` only one of equal samples is in it.
        """
        ends = np.frombuffer(self._ends, np.int64)
        heads = np.empty(len(self), HEAD)
        keys = np.frombuffer(self._keys, ">u8").reshape(-1, 2).astype(np.uint64)
        heads["high"], heads["low"] = keys[:, 0], keys[:, 1]
        heads["label"], heads["size_bytes"] = self._labels, np.diff(ends)
        order = sorted_by(keys[:, 0], keys[:, 1], heads["label"])
        if deduplicate:
            order = order[~_repeats(heads[order])]
        table = heads[order].tobytes()
        content, target, width = self._content, self._sorted, HEAD.itemsize
        place = head = 0
        for start, end in zip(ends[order].tolist(), ends[order + 1].tolist(), strict=True):
            image = place + width
            target[place:image] = table[head : head + width]
            place = image + end - start
            target[image:place] = content[start:end]
            head += width
        target[place : place + len(table)] = table
        num_repeated = len(self) - len(order)
        self._clear()
        return Taken(target[: place + len(table)], len(order), place, num_repeated)


class Taken(NamedTuple):
    """A run on its way to the store."""

    content: memoryview
    num_samples: int
    table_start: int
    num_repeated: int
    """Samples that were left out because an equal one is there."""


def _repeats(heads: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Return for sorted rows of ``HEAD`` whether each has key and label of the one before."""
    is_repeated = np.zeros(len(heads), np.bool_)
    parts = [heads[name][1:] == heads[name][:-1] for name in ("high", "low", "label")]
    is_repeated[1:] = np.logical_and.reduce(parts)
    return is_repeated


def samples(content: memoryview, where: str) -> Iterator[Sample]:
    """Yield the samples in ``content``, a part of a run that begins and ends between two of them.

    Raises:
        ShardError: If it does not hold whole samples.
    """
    position, width = 0, HEAD.itemsize
    while position < len(content):
        start = position + width
        label, size_bytes = _LABEL_AND_SIZE.unpack_from(content, position + KEY_BYTES)
        end = start + size_bytes
        if end > len(content):
            raise ShardError(
                f"{where}: expected whole samples, found {len(content)} bytes that end in the"
                " middle of one: a temporary object was altered: run preprocess again"
            )
        yield Sample(bytes(content[position : position + KEY_BYTES]), label, content[start:end])
        position = end
