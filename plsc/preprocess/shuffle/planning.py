"""Planning: the input becomes map items, a job, and a workforce of the right size."""

import hashlib
import os
from itertools import count

from plsc import storage
from plsc.conf.schema import ImageCheck, PipelineConfig
from plsc.errors import PlscError
from plsc.preprocess.inputs import Input, Item
from plsc.preprocess.shuffle.job import TASKS_PER_WORKER, Job, read_value, run_bytes, write_value

__all__ = ["begin", "find_items"]

_SMALLEST_ITEM_BYTES = 4 << 20


def find_items(config: PipelineConfig, source: Input) -> list[Item]:
    """Return the items of ``source``: each fills about one run, and there are enough for all.

    Raises:
        RecordError: If a file is not what its layout says.
        StorageError: If the store cannot be asked.
    """
    total = sum(info.size_bytes for info in source.files.values())
    largest = run_bytes(config.preprocess.memory_mib << 20)
    fair = total // (TASKS_PER_WORKER * _workers(config))
    return list(source.items(min(largest, max(fair, _SMALLEST_ITEM_BYTES))))


def begin(config: PipelineConfig, source: Input, folder_uri: str) -> tuple[Job, list[Item]]:
    """Plan the job and write it with its items; what a killed run of the same plan did is kept.

    Returns:
        The job and its items.

    Raises:
        RecordError: If a file is not what its layout says.
        StorageError: If the store does not give or take what it should.
    """
    items = find_items(config, source)
    job = _job(config, source, folder_uri, items)
    if not _is_begun(job):
        storage.delete_prefix(job.work_uri)
        for number, item in zip(count(), items):
            write_value(job.map_uri(number, ".item.json"), item)
        write_value(job.uri, job)
    return job, items


def _job(config: PipelineConfig, source: Input, folder_uri: str, items: list[Item]) -> Job:
    settings = config.preprocess
    digest = hashlib.sha256()
    for item in items:
        digest.update(item.model_dump_json().encode())
    return Job(
        folder_uri=folder_uri,
        work_uri=storage.join(folder_uri, "work", config.run_id),
        seed=config.seed,
        image_size=config.image_size,
        num_classes=settings.num_classes,
        is_named=source.is_named,
        decodes=settings.check is ImageCheck.decode,
        column_order=settings.column_order.value,
        image_column=settings.image_column,
        label_column=settings.label_column,
        samples_per_shard=settings.samples_per_shard,
        deduplicate=settings.deduplicate,
        min_images_per_class=settings.min_images_per_class,
        memory_bytes=settings.memory_mib << 20,
        num_workers=min(_workers(config), len(items)),
        num_items=len(items),
        items_sha256=digest.hexdigest(),
    )


def _is_begun(job: Job) -> bool:
    if not storage.exists(job.uri):
        return False
    try:
        return read_value(Job, job.uri) == job
    except PlscError:
        return False


def _workers(config: PipelineConfig) -> int:
    return config.preprocess.workers or len(os.sched_getaffinity(0))
