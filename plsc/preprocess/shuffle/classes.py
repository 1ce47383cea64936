"""The classes of a data set: which labels of the input they stand for, and how many images each."""

from collections import Counter
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plsc.errors import RecordError
from plsc.preprocess.shuffle.job import Job

__all__ = ["Classes", "LabelCounts"]

_Numbers = npt.NDArray[np.int64]
_MERGE_AT = 1 << 22


class LabelCounts:
    """Counts labels, block by block; memory grows with the different ones."""

    def __init__(self) -> None:
        self._blocks: list[tuple[_Numbers, _Numbers]] = []
        self._size = 0

    def add(self, labels: _Numbers) -> None:
        """Count ``labels``, int64 [n]."""
        found, counts = np.unique(labels, return_counts=True)
        self._blocks.append((found, counts))
        self._size += len(found)
        if self._size > _MERGE_AT and len(self._blocks) > 1:
            self._blocks = [self.totals()]
            self._size = len(self._blocks[0][0]) // 2  # merging pays when as many came again

    def totals(self) -> tuple[_Numbers, _Numbers]:
        """Return the different labels, ascending, and how often each occurred, int64 [k] each."""
        labels = np.concatenate([block[0] for block in self._blocks])
        counts = np.concatenate([block[1] for block in self._blocks])
        found, places = np.unique(labels, return_inverse=True)
        sums = np.zeros(len(found), np.int64)
        np.add.at(sums, places, counts)
        return found, sums


class Classes:
    """The labels that occur in the input, and the class id of each."""

    def __init__(
        self, labels: _Numbers, counts: _Numbers, ids: _Numbers, names: list[str], num_classes: int
    ) -> None:
        self.labels = labels
        """int64 [k], ascending: an integer of the input, or what stands for a name."""
        self.counts = counts
        """int64 [k], number of images."""
        self.ids = ids
        """int64 [k], the class id; -1 if the class is left out."""
        self.names = names
        """The label as the input spells it."""
        self.num_classes = num_classes

    @classmethod
    def chosen(cls, job: Job, counts: LabelCounts, names: dict[int, str]) -> Self:
        """Number the classes: names in sorted order, integers as they are.

        With ``min_images_per_class`` the classes that have fewer are left out, and the others are
        numbered from 0 without gaps.

        Args:
            job: The job.
            counts: Images of every label.
            names: What the labels stand for; empty if they are integers.

        Raises:
            RecordError: If no class is left, or there are more names than ``num_classes``.
        """
        labels, images = counts.totals()
        is_kept = images >= job.min_images_per_class
        if not is_kept.any():
            raise RecordError(
                f"expected classes with at least {job.min_images_per_class} images"
                f" (preprocess.min_images_per_class), found at most {images.max()} in any of"
                f" {len(labels)}: lower it"
            )
        spelled = [names[n] for n in labels.tolist()] if job.is_named else [str(n) for n in labels]
        ids = labels.copy()
        num_classes = job.num_classes or int(labels.max()) + 1
        if job.is_named or job.min_images_per_class:
            ids = _numbered(is_kept, spelled if job.is_named else [])
            num_classes = int(is_kept.sum())
            if job.is_named and job.num_classes:
                if num_classes > job.num_classes:
                    raise RecordError(
                        f"expected at most {job.num_classes} class names (preprocess.num_classes),"
                        f" found {num_classes}: raise it, or leave it out"
                    )
                num_classes = job.num_classes
        return cls(labels, images, ids, spelled, num_classes)

    @property
    def are_renumbered(self) -> bool:
        """Whether any class id differs from its label."""
        return not np.array_equal(self.ids, self.labels)

    @property
    def num_empty(self) -> int:
        """Classes without an image."""
        return self.num_classes - int((self.ids >= 0).sum())

    def ids_of(self, labels: _Numbers) -> _Numbers:
        """Return the class ids of labels that occur, int64 [n]; -1 where the class is left out."""
        return self.ids[np.searchsorted(self.labels, labels)]

    def images_per_class(self) -> dict[int, int]:
        """Return the histogram: number of images -> number of classes that have so many."""
        histogram = Counter(self.counts[self.ids >= 0].tolist())
        if self.num_empty:
            histogram[0] = self.num_empty
        return dict(sorted(histogram.items()))

    def content(self) -> pa.Buffer:
        """Return the class map as an Arrow IPC file (``ShardSet.classes`` has its columns)."""
        order = np.argsort(self.ids, kind="stable")
        order = order[self.ids[order] >= 0]
        columns = {
            "label": pa.array(self.ids[order], pa.int64()),
            "name": pa.array([self.names[n] for n in order.tolist()], pa.large_string()),
            "num_images": pa.array(self.counts[order], pa.int64()),
        }
        table = pa.table(columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()


def _numbered(is_kept: npt.NDArray[np.bool_], names: list[str]) -> _Numbers:
    """Return 0, 1, 2, ... for what is kept, in the order of ``names`` (if any), -1 for the rest."""
    kept = np.flatnonzero(is_kept).tolist()
    if names:
        kept.sort(key=lambda place: names[place].encode())
    ids = np.full(len(is_kept), -1, np.int64)
    ids[kept] = np.arange(len(kept))
    return ids
