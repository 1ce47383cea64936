"""Order: from the tables of all runs, which sample goes into which shard.

Only heads are looked at, 32 bytes a sample, in two passes over slices of the key: the first counts
images per class and duplicates, the second cuts what stays into shards, and the shards into reduce
tasks that fit a worker's memory.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plsc import storage
from plsc.artifacts.index import Value
from plsc.artifacts.shards import Duplicates, LeftOut
from plsc.errors import RecordError
from plsc.preprocess.shuffle.classes import Classes, LabelCounts
from plsc.preprocess.shuffle.job import TASKS_PER_WORKER, Job, write_value
from plsc.preprocess.shuffle.mapping import Summary
from plsc.preprocess.shuffle.partition import equal_ranges
from plsc.preprocess.shuffle.runs import HEAD, SAMPLE_BYTES, Run
from plsc.preprocess.shuffle.tables import Rows, Tables

__all__ = ["Order", "Plan", "find_order"]


class Plan(Value):
    """What one reduce task does."""

    first_shard: int
    shard_sizes: list[int]
    """Samples of each of its shards."""
    ranges: list[tuple[str, int, int]]
    """Uri of a run, first byte, end: what to gather from it."""
    labels_uri: str
    """Labels of the input and their class ids, int64 [2, k]; empty: labels are class ids."""

    @property
    def num_bytes(self) -> int:
        """What all ranges hold."""
        return sum(stop - start for _, start, stop in self.ranges)


class Order(NamedTuple):
    """The order of all samples, as far as it concerns the index."""

    num_samples: int
    num_bytes: int
    """What reduce has to gather."""
    num_shards: int
    num_tasks: int
    """Reduce tasks."""
    classes: Classes
    duplicates: Duplicates
    left_out: LeftOut
    key_sum: int
    """Sum of the upper halves of all samples' keys, modulo 2 ** 64."""


def find_order(job: Job, summaries: Sequence[Summary], scratch: Path) -> Order:
    """Write the plan of every reduce task, and return what the index says of the order.

    Args:
        job: The job.
        summaries: What the map tasks found, at least one sample.
        scratch: Local folder with room for 32 bytes a sample.

    Raises:
        RecordError: If no class has enough images, or a shard does not fit a worker's memory.
        StorageError: If the store does not give or take what it should.
        OSError: If this disk has no room.
    """
    runs = [run for summary in summaries for run in summary.runs]
    names = _names_by_label(summaries)
    with Tables(runs, scratch) as tables:
        counts, num_repeated, num_conflicting = _count(tables, deduplicate=job.deduplicate)
        num_repeated += sum(summary.num_repeated for summary in summaries)
        classes = Classes.chosen(job, counts, names)
        labels_uri = _write_labels(job, classes) if classes.are_renumbered else ""
        num_samples = int(classes.counts[classes.ids >= 0].sum())
        sizes = [len(r) for r in equal_ranges(num_samples, largest=job.samples_per_shard)]
        cutter = _Cutter(job, runs, sizes, labels_uri)
        key_sum = 0
        for rows in tables.slices():
            is_kept = classes.ids_of(rows.labels) >= 0
            if job.deduplicate:
                is_kept &= ~(rows.repeats_key() & rows.repeats_label())
            key_sum += int(rows.high[is_kept].sum())
            cutter.take(rows, is_kept)
        num_tasks = cutter.finish()
    return Order(
        num_samples=num_samples,
        num_bytes=sum(run.table_start for run in runs),
        num_shards=len(sizes),
        num_tasks=num_tasks,
        classes=classes,
        duplicates=Duplicates(
            num_repeated=num_repeated,
            num_removed=num_repeated if job.deduplicate else 0,
            num_conflicting=num_conflicting,
        ),
        left_out=LeftOut(
            num_classes=int((classes.ids < 0).sum()),
            num_rows=int(classes.counts[classes.ids < 0].sum()),
        ),
        key_sum=key_sum % 2**64,
    )


def _names_by_label(summaries: Sequence[Summary]) -> dict[int, str]:
    names: dict[int, str] = {}
    for summary in summaries:
        for name, label in summary.names.items():
            if names.setdefault(label, name) != name:
                raise RecordError(
                    f"the class names {name!r} and {names[label]!r} have the same digest (63 bits):"
                    " rename one of them"
                )
    return names


def _count(tables: Tables, *, deduplicate: bool) -> tuple[LabelCounts, int, int]:
    """Return images per label, repeated rows, and images with more than one label."""
    counts = LabelCounts()
    num_repeated = num_conflicting = 0
    for rows in tables.slices():
        same_key, same_label = rows.repeats_key(), rows.repeats_label()
        is_repeated = same_key & same_label
        num_repeated += int(is_repeated.sum())
        image = np.cumsum(~same_key)
        num_conflicting += len(np.unique(image[same_key & ~same_label]))
        counts.add(rows.labels[~is_repeated] if deduplicate else rows.labels)
    return counts, num_repeated, num_conflicting


def _write_labels(job: Job, classes: Classes) -> str:
    uri = storage.join(job.work_uri, job.attempt, "labels.i64")
    table = np.stack([classes.labels, classes.ids])
    storage.write_bytes(uri, table.astype("<i8").tobytes(), durable=False)
    return uri


class _Cutter:
    """Cuts sorted rows into shards, and consecutive shards into reduce tasks."""

    def __init__(self, job: Job, runs: Sequence[Run], sizes: list[int], labels_uri: str) -> None:
        self._job = job
        self._runs = runs
        self._labels_uri = labels_uri
        self._sizes = sizes
        self._ends = np.cumsum(sizes)
        self._shard = 0
        self._num_kept = 0
        self._num_tasks = 0
        self._place = np.zeros(len(runs), np.int64)
        """How far each run is cut, in bytes; so the two that follow."""
        self._task_start = self._shard_start = self._place
        self._task_shards: list[int] = []
        self._task_cost = self._largest = 0
        self._shard_cost = self._shard_bytes = 0
        """Of the shard: memory of all rows gathered for it; of those that stay."""
        total = sum(run.table_start + run.num_samples * SAMPLE_BYTES for run in runs)
        self._fair = total // (TASKS_PER_WORKER * job.num_workers)

    def take(self, rows: Rows, is_kept: npt.NDArray[np.bool_]) -> None:
        """Go on with the next rows."""
        kept = self._num_kept + np.cumsum(is_kept)
        begin = 0
        # A shard ends in front of the first sample of the next one.
        for end in np.searchsorted(kept, self._ends[self._shard : -1] + 1).tolist():
            if end == len(rows.runs):
                break
            self._advance(rows, is_kept, begin, end)
            self._end_shard()
            begin = end
        self._advance(rows, is_kept, begin, len(rows.runs))
        self._num_kept = int(kept[-1]) if len(kept) else self._num_kept

    def finish(self) -> int:
        """End the last shard and task, and return the number of tasks."""
        self._end_shard()
        self._end_task(self._place)
        return self._num_tasks

    def _advance(self, rows: Rows, is_kept: npt.NDArray[np.bool_], begin: int, end: int) -> None:
        sizes = rows.sizes[begin:end] + HEAD.itemsize
        # Sums of float64 weights are exact up to 2 ** 53 bytes.
        taken = np.bincount(rows.runs[begin:end], sizes, minlength=len(self._runs))
        self._place = self._place + taken.astype(np.int64)
        costs = sizes + SAMPLE_BYTES
        self._shard_cost += int(costs.sum())
        self._shard_bytes += int(costs[is_kept[begin:end]].sum())

    def _end_shard(self) -> None:
        """Add the shard to the task, or begin a new one with it if they do not fit together."""
        cost, largest = self._shard_cost, max(self._largest, self._shard_bytes)
        # What stays exists twice more while a shard is written.
        room = self._job.memory_bytes - 2 * largest
        if cost > room:
            raise RecordError(
                f"a shard of {self._sizes[self._shard]} samples takes"
                f" {(cost + 2 * self._shard_bytes) >> 20} MiB while it is made"
                f" ({(cost - self._shard_bytes) >> 20} MiB of that for rows that are left out), and"
                f" a worker has {self._job.memory_bytes >> 20}: raise preprocess.memory_mib or"
                " lower preprocess.samples_per_shard"
            )
        if self._task_shards and self._task_cost + cost > min(room, self._fair):
            self._end_task(self._shard_start)
        self._task_shards.append(self._sizes[self._shard])
        self._task_cost += cost
        self._largest = max(self._largest, self._shard_bytes)
        self._shard += 1
        self._shard_start, self._shard_cost, self._shard_bytes = self._place, 0, 0

    def _end_task(self, place: npt.NDArray[np.int64]) -> None:
        spans = zip(self._task_start.tolist(), place.tolist(), strict=True)
        plan = Plan(
            first_shard=self._shard - len(self._task_shards),
            shard_sizes=self._task_shards,
            ranges=[
                (run.uri, start, stop)
                for run, (start, stop) in zip(self._runs, spans, strict=True)
                if start < stop
            ],
            labels_uri=self._labels_uri,
        )
        write_value(self._job.reduce_uri(self._num_tasks, ".plan.json"), plan)
        self._num_tasks += 1
        self._task_start, self._task_shards, self._task_cost, self._largest = place, [], 0, 0
