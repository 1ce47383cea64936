"""The heads of all runs on this disk, read slice by slice in the order of (key, label)."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from plsc import storage
from plsc.preprocess.shuffle.runs import HEAD, Run, sorted_by

__all__ = ["Rows", "Tables"]

_SLICE_ROWS = 1 << 20
_THREADS = 8
_AT_ONCE = 32


class Rows(NamedTuple):
    """Some rows of all runs, sorted by (key, label); arrays of equal length n."""

    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    labels: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    """Bytes of each image."""
    runs: npt.NDArray[np.int64]
    """Which run each row comes from."""

    def repeats_key(self) -> npt.NDArray[np.bool_]:
        """Return bool [n]: whether the row before has the same key."""
        same = np.zeros(len(self.high), np.bool_)
        same[1:] = (self.high[1:] == self.high[:-1]) & (self.low[1:] == self.low[:-1])
        return same

    def repeats_label(self) -> npt.NDArray[np.bool_]:
        """Return bool [n]: whether the row before has the same label."""
        same = np.zeros(len(self.labels), np.bool_)
        same[1:] = self.labels[1:] == self.labels[:-1]
        return same


class Tables:
    """Heads of all runs: 32 bytes a sample on this disk, a slice of a million in memory.

    Slices are ranges of the key, so equal keys never lie in two of them.
    """

    def __init__(
        self, runs: Sequence[Run], scratch: Path, *, slice_rows: int = _SLICE_ROWS
    ) -> None:
        """Fetch the tables of ``runs`` into a file without a name in ``scratch``.

        Raises:
            StorageError: If a run cannot be read.
            OSError: If this disk has no room.
        """
        num_rows = sum(run.num_samples for run in runs)
        bits = max(0, (-(-num_rows // slice_rows) - 1).bit_length())
        self._num_slices = 1 << bits
        self._bounds = np.arange(1, self._num_slices, dtype=np.uint64) << np.uint64(
            (64 - bits) % 64
        )
        self._file = (scratch / "tables").open("w+b")
        (scratch / "tables").unlink()
        starts = np.cumsum([0, *(run.num_samples for run in runs)])
        self._cuts = np.empty((len(runs), self._num_slices + 1), np.int64)
        with ThreadPoolExecutor(_THREADS) as pool:
            fetched = (
                content
                for first in range(0, len(runs), _AT_ONCE)
                for content in pool.map(_fetch, runs[first : first + _AT_ONCE])
            )
            for number, content in enumerate(fetched):
                table = np.frombuffer(content, HEAD)
                cuts = np.searchsorted(table["high"].astype(np.uint64), self._bounds)
                self._cuts[number] = starts[number] + np.array([0, *cuts.tolist(), len(table)])
                self._file.write(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def slices(self) -> Iterator[Rows]:
        """Yield all rows in order, slice by slice."""
        for number in range(self._num_slices):
            yield self._slice(number)

    def _slice(self, number: int) -> Rows:
        spans = self._cuts[:, number : number + 2].tolist()
        blocks = [self._read(start, stop - start) for start, stop in spans]
        heads = np.concatenate([np.empty(0, HEAD), *blocks])
        runs = np.repeat(np.arange(len(spans)), [len(block) for block in blocks])
        high, low = heads["high"].astype(np.uint64), heads["low"].astype(np.uint64)
        labels, sizes = heads["label"].astype(np.int64), heads["size_bytes"].astype(np.int64)
        del heads
        order = sorted_by(high, low, labels)
        return Rows(high[order], low[order], labels[order], sizes[order], runs[order])

    def _read(self, start: int, count: int) -> npt.NDArray[np.void]:
        self._file.seek(start * HEAD.itemsize)
        return np.frombuffer(self._file.read(count * HEAD.itemsize), HEAD)


def _fetch(run: Run) -> bytes:
    return storage.read_range(run.uri, run.table_start, run.size_bytes)
