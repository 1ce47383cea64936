"""Planning: the input becomes map items, a job, and a workforce of the right size."""

import hashlib
import uuid
from itertools import count

from plsc import storage
from plsc.cluster.pods import whole_processors
from plsc.conf.schema import ImageCheck, PipelineConfig, PreprocessConfig
from plsc.errors import PlscError
from plsc.preprocess.inputs import Input, Item
from plsc.preprocess.shuffle.job import TASKS_PER_WORKER, Job, read_value, run_bytes, write_value
from plsc.processors import usable_processors

__all__ = ["begin", "find_items", "processes_per_pod"]

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
    begun = _begun(job)
    if begun is not None:
        return begun, items
    storage.delete(job.uri)  # if this ends in the middle, what is left must not look whole
    storage.delete_prefix(job.work_uri)
    for number, item in zip(count(), items):
        write_value(job.map_uri(number, ".item.json"), item)
    write_value(job.uri, job)
    return job, items


def processes_per_pod(settings: PreprocessConfig) -> int:
    """Return how many tasks each pod of a cluster does at once.

    Without ``preprocess.workers`` it is one for each whole processor that the pod asks for, and not
    for each that its node has.
    """
    return settings.workers or whole_processors(settings.pods.cpu or "1")


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
        attempt=uuid.uuid4().hex[:12],
    )


def _begun(job: Job) -> Job | None:
    """Return the job as an earlier attempt of the same plan began it, if there is one."""
    if not storage.exists(job.uri):
        return None
    try:
        begun = read_value(Job, job.uri)
    except PlscError:
        return None
    return begun if begun == job.model_copy(update={"attempt": begun.attempt}) else None


def _workers(config: PipelineConfig) -> int:
    settings = config.preprocess
    if settings.pods.count:
        return settings.pods.count * processes_per_pod(settings)
    return settings.workers or usable_processors()
