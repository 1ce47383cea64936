"""The global shuffle: a key per row that depends on nothing but the seed and where the row stands.

``key = mix(hash(seed, part name) ^ mix(offset of the row in its part))``, where ``hash`` is BLAKE2b
and ``mix`` the output function of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom
number generators, 2014). Rows in the order of their keys are shuffled, and nothing else can change
that order: not the order of a list, nor processes, nor buffers.

Rows wait in a ``Spool`` on this disk: memory holds 24 bytes a row, not the images.
"""

import hashlib
import mmap
import tempfile
from array import array
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from plsc.artifacts.records import Record

__all__ = ["Shuffled", "Spool", "keys_of", "make_unique"]

_BUFFER_BYTES = 1 << 20


def keys_of(seed: int, part: str, offsets: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the keys of rows of one part; different rows of a part have different keys.

    Args:
        seed: Seed of the shuffle.
        part: Name of the part.
        offsets: uint64 [n], where the rows begin in it, in bytes.

    Returns:
        uint64 [n].
    """
    digest = hashlib.blake2b(f"{seed}\0{part}".encode(), digest_size=8).digest()
    return _mix(np.uint64(int.from_bytes(digest, "big")) ^ _mix(offsets))


def make_unique(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return sorted ``keys``, uint64 [n], with equal ones moved apart by as little as it takes.

    Two of 400 million rows share a key with a probability of 0.4 %.
    """
    keys = keys.copy()
    while (late := np.flatnonzero(keys[1:] <= keys[:-1]) + 1).size:
        keys[late] = keys[late - 1] + np.uint64(1)
    return keys


class Shuffled:
    """All rows, in the order of their keys."""

    def __init__(
        self,
        keys: npt.NDArray[np.uint64],
        labels: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
        content: mmap.mmap,
    ) -> None:
        """Take columns that are sorted; image i is ``content[starts[i]:ends[i]]``."""
        self.keys = keys
        """uint64 [n], ascending, all different."""
        self.labels = labels
        """int64 [n]."""
        self._starts = starts
        self._ends = ends
        self._content = content

    def __len__(self) -> int:
        return len(self.keys)

    def images(self, rows: range) -> list[bytes]:
        """Return the encoded images of some rows."""
        spans = zip(
            self._starts[rows.start : rows.stop].tolist(),
            self._ends[rows.start : rows.stop].tolist(),
            strict=True,
        )
        return [self._content[start:end] for start, end in spans]


class Spool:
    """Holds rows as they come, in a file without a name: whatever ends the process removes it."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        """Open the spool.

        Args:
            folder: Where there is room for all images.
            seed: Seed of the shuffle.
        """
        self._seed = seed
        self._file = tempfile.TemporaryFile(dir=folder, buffering=_BUFFER_BYTES)  # noqa: SIM115  __exit__ closes
        self._keys: list[npt.NDArray[np.uint64]] = []
        self._offsets = array("Q")
        self._labels = array("q")
        self._ends = array("q")
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, offset: int, record: Record) -> None:
        """Add a row that begins at ``offset`` of the current part.

        Raises:
            OSError: If the disk has no room.
        """
        self._file.write(record.image)
        self._end += len(record.image)
        self._offsets.append(offset)
        self._labels.append(record.label)
        self._ends.append(self._end)

    def end_part(self, part: str) -> None:
        """Say that the rows since the last part were ``part``'s; parts come sorted by name."""
        offsets = np.frombuffer(self._offsets, np.uint64)
        self._keys.append(keys_of(self._seed, part, offsets))
        self._offsets = array("Q")

    def shuffled(self) -> Shuffled:
        """Return all rows in the order of their keys; there is at least one. Ends the filling.

        Raises:
            OSError: If the disk has no room.
        """
        self._file.flush()
        keys = np.concatenate(self._keys)
        ends = np.array(self._ends, np.int64)
        starts = np.concatenate([[0], ends[:-1]])
        order = np.argsort(keys, kind="stable")
        return Shuffled(
            keys=make_unique(keys[order]),
            labels=np.array(self._labels, np.int64)[order],
            starts=starts[order],
            ends=ends[order],
            content=mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ),
        )


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
