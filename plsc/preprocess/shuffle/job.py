"""The job: what all tasks of one preprocess run need to know, and where their objects lie.

A worker on another machine has nothing but the job's uri. While a run lasts, the data set's folder
holds, below ``work/<run_id>/``::

    job.json                       the job
    failures/00001.json            on a cluster: why the pod of index 1 failed

and, below ``work/<run_id>/<attempt>/``, so that a pod that is left over from other settings changes
nothing here::

    map/00012.item.json            what map task 12 reads
    map/00012-0000.run             what it read, sorted by key (``runs``)
    map/00012.quarantine.jsonl     its bad rows
    map/00012.json                 its summary: written last, so the task is done
    labels.i64                     label of the input -> class id, where they differ
    reduce/00003.plan.json         which rows of which runs reduce task 3 gathers, into which shards
    reduce/00003.json              the shards it wrote: written last, so the task is done
"""

from typing import TypeVar

import pydantic

from plsc import storage
from plsc.artifacts.index import Value
from plsc.conf.choices import ColumnOrder
from plsc.errors import ShardError
from plsc.preprocess.inputs import Judge

__all__ = ["TASKS_PER_WORKER", "Job", "read_value", "run_bytes", "write_value"]

TASKS_PER_WORKER = 8
"""Small inputs are cut so that no worker is long without work while another has some."""

_LIMIT_BYTES = 256 * 1024 * 1024
_Kind = TypeVar("_Kind", bound=Value)


class Job(Value):
    """What the tasks of one run have in common."""

    folder_uri: str
    """The data set's folder: shards go there."""
    work_uri: str
    """The run's temporary folder."""
    seed: int
    image_size: int
    num_classes: int
    is_named: bool
    """Whether labels are names; each then travels as 64 bits of its digest."""
    decodes: bool
    """Whether every image is decoded, not only its header read."""
    column_order: str
    image_column: str
    label_column: str
    samples_per_shard: int
    deduplicate: bool
    min_images_per_class: int
    memory_bytes: int
    """What a task may hold of images."""
    num_workers: int
    """Processes, of all pods together, for which the work is cut."""
    num_items: int
    items_sha256: str
    """Digest of all items: tasks of another plan are not taken for this one's."""
    attempt: str
    """Made up when the work begins from nothing: what an earlier attempt did, or still does, is not
    taken for this one's."""

    @property
    def run_bytes(self) -> int:
        """What a run of this job may hold of images."""
        return run_bytes(self.memory_bytes)

    @property
    def uri(self) -> str:
        """Where the job itself lies."""
        return storage.join(self.work_uri, "job.json")

    def map_uri(self, number: int, ending: str) -> str:
        """Return where map task ``number`` keeps what has this ending."""
        return storage.join(self.work_uri, self.attempt, "map", f"{number:05d}{ending}")

    def reduce_uri(self, number: int, ending: str) -> str:
        """Return where reduce task ``number`` keeps what has this ending."""
        return storage.join(self.work_uri, self.attempt, "reduce", f"{number:05d}{ending}")

    def judge(self) -> Judge:
        """Return what decides whether a row is good."""
        return Judge(
            image_size=self.image_size,
            num_classes=0 if self.is_named else self.num_classes,
            is_named=self.is_named,
            decodes=self.decodes,
            column_order=ColumnOrder(self.column_order),
            image_column=self.image_column,
            label_column=self.label_column,
        )


def run_bytes(memory_bytes: int) -> int:
    """Return what a run may hold of images when a worker has ``memory_bytes`` for them.

    It is a third, because a run is copied to be sorted, and less than a store takes at once (5 GB).
    """
    return min(memory_bytes // 3, 4 << 30)


def write_value(uri: str, value: Value) -> None:
    """Write a small temporary document.

    Raises:
        StorageError: If the store refuses.
    """
    storage.write_bytes(uri, value.model_dump_json().encode(), durable=False)


def read_value(kind: type[_Kind], uri: str) -> _Kind:
    """Read a small temporary document.

    Raises:
        StorageError: If it cannot be read.
        ShardError: If it is not what a task of this version writes.
    """
    content = storage.read_bytes(uri, limit_bytes=_LIMIT_BYTES)
    try:
        return kind.model_validate_json(content)
    except pydantic.ValidationError as error:
        raise ShardError(
            f"{uri}: expected {kind.__name__}, but {error.errors()[0]['msg']}: it is a temporary"
            " object that was altered: run preprocess again"
        ) from error
