"""Seal: what the reduce tasks wrote is compared with the order, and then the index is written."""

import hashlib
from collections.abc import Sequence

from plsc import storage
from plsc.artifacts.index import Payload, Provenance
from plsc.artifacts.shards import Quarantine, Shard, ShardSet
from plsc.conf.schema import PipelineConfig
from plsc.errors import ShardError
from plsc.preprocess.shuffle.job import Job
from plsc.preprocess.shuffle.ordering import Order
from plsc.preprocess.shuffle.reducing import Reduced

__all__ = ["CLASSES", "seal"]

CLASSES = "classes.arrow"
"""The class map; lies beside the index."""


def seal(
    config: PipelineConfig,
    job: Job,
    *,
    layout: str,
    column_order: str,
    num_blank: int,
    quarantined: Quarantine,
    order: Order,
    reduced: Sequence[Reduced],
    provenance: Provenance,
) -> ShardSet:
    """Check that every sample arrived once, write the class map, and return the index unwritten.

    Raises:
        ShardError: If something is missing; then there is no index.
        StorageError: If the store does not give or take what it should.
    """
    shards = [shard for task in reduced for shard in task.shards]
    _check(job, order, reduced, shards)
    content = order.classes.content()
    classes = Payload(
        uri=storage.join(job.folder_uri, CLASSES),
        size_bytes=content.size,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    storage.write_bytes(classes.uri, memoryview(content))
    return ShardSet(
        provenance=provenance,
        uri=storage.join(job.folder_uri, "index.json"),
        layout=layout,
        column_order=column_order,
        seed=config.seed,
        num_samples=order.num_samples,
        num_blank_rows=num_blank,
        num_classes=order.classes.num_classes,
        num_empty_classes=order.classes.num_empty,
        images_per_class=order.classes.images_per_class(),
        classes=classes,
        image_size=config.image_size,
        shards=shards,
        quarantine=quarantined,
        duplicates=order.duplicates,
        left_out=order.left_out,
    )


def _check(job: Job, order: Order, reduced: Sequence[Reduced], shards: Sequence[Shard]) -> None:
    """Compare counts and keys with the order, and sizes with what the store lists."""
    listed = {
        info.uri.rpartition("/")[2]: info.size_bytes
        for info in storage.list_objects(job.folder_uri + "/")
    }
    wrong = [s.uri for s in shards if listed.get(s.uri.rpartition("/")[2]) != s.size_bytes]
    found = (
        len(shards),
        sum(shard.num_samples for shard in shards),
        sum(task.key_sum for task in reduced) % 2**64,
    )
    expected = (order.num_shards, order.num_samples, order.key_sum)
    if wrong or found != expected:
        raise ShardError(
            f"{job.folder_uri}: expected {expected[0]} shards with {expected[1]} samples (keys"
            f" {expected[2]:016x}), found {found[0]} with {found[1]} ({found[2]:016x}), and"
            f" {len(wrong)} of another size ({', '.join(wrong[:3])}): shards were altered while"
            " they were written: run preprocess again"
        )
