"""Reduce: gather a range of keys from all runs, sort it, and write its shards."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plsc import storage
from plsc.artifacts.index import Value
from plsc.artifacts.shards import Shard, shard_content
from plsc.errors import ShardError
from plsc.preprocess.shuffle.arena import arena
from plsc.preprocess.shuffle.job import Job, read_value, write_value
from plsc.preprocess.shuffle.ordering import Plan
from plsc.preprocess.shuffle.runs import key_function, samples, sorted_by

__all__ = ["Reduced", "reduce_range"]

_THREADS = 8


class Reduced(Value):
    """What one reduce task wrote; the object that says it is done."""

    shards: list[Shard]
    key_sum: int
    """Sum of the upper halves of its samples' keys, modulo 2 ** 64."""


class _Gathered(NamedTuple):
    """Samples of all runs in one range of keys, sorted."""

    keys: npt.NDArray[np.uint64]
    """[n, 2]."""
    ids: npt.NDArray[np.int64]
    images: list[memoryview]


def reduce_range(job: Job, number: int, advance: Callable[[int], None]) -> None:
    """Run reduce task ``number``; doing it again writes the same bytes.

    Args:
        job: The job.
        number: Which of its plans.
        advance: Told now and then how many bytes of shards are written.

    Raises:
        StorageError: If reading or writing fails.
        ShardError: If a run was altered.
    """
    plan = read_value(Plan, job.reduce_uri(number, ".plan.json"))
    memory = arena(job.memory_bytes)
    gathered = _gather(job, plan, memory)
    if len(gathered.images) != sum(plan.shard_sizes):
        raise ShardError(
            f"{job.reduce_uri(number, '')}: expected {sum(plan.shard_sizes)} samples, gathered"
            f" {len(gathered.images)}: a temporary object was altered: run preprocess again"
        )
    shards = []
    start = 0
    for place, size in enumerate(plan.shard_sizes):
        span = slice(start, start + size)
        content = shard_content(
            gathered.images[span],
            gathered.ids[span],
            gathered.keys[span],
            memory=memory[plan.num_bytes :],
        )
        shard = Shard(
            uri=storage.join(job.folder_uri, f"shard-{plan.first_shard + place:05d}.arrow"),
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            num_samples=size,
        )
        storage.write_bytes(shard.uri, content)
        shards.append(shard)
        advance(shard.size_bytes)
        start += size
    key_sum = int(gathered.keys[:, 0].sum(dtype=np.uint64)) if start else 0
    write_value(job.reduce_uri(number, ".json"), Reduced(shards=shards, key_sum=key_sum))


def _gather(job: Job, plan: Plan, memory: memoryview) -> _Gathered:
    key_of = key_function(job.seed)
    keys, labels, images = bytearray(), [], []
    for uri, content in _fetched(plan, memory):
        for key, label, image in samples(content, uri):
            if key_of(image) != key:
                raise ShardError(
                    f"{uri}: an image does not have the digest that was written with it: a"
                    " temporary object was altered: run preprocess again"
                )
            keys += key
            labels.append(label)
            images.append(image)
    halves = np.frombuffer(keys, ">u8").reshape(-1, 2).astype(np.uint64)
    numbers = np.array(labels, np.int64)
    order = sorted_by(halves[:, 0], halves[:, 1], numbers)
    halves, numbers = halves[order], numbers[order]
    ids = _class_ids(plan, numbers)
    is_kept = ids >= 0
    if job.deduplicate:
        same = (halves[1:] == halves[:-1]).all(axis=1) & (numbers[1:] == numbers[:-1])
        is_kept[1:] &= ~same
    return _Gathered(
        halves[is_kept], ids[is_kept], [images[place] for place in order[is_kept].tolist()]
    )


def _fetched(plan: Plan, memory: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Read every range into ``memory``, side by side, and yield where it is."""
    ends = list(accumulate(stop - start for _, start, stop in plan.ranges))
    places = [memory[first:end] for first, end in zip([0, *ends], ends, strict=False)]

    def fetch(place: memoryview, span: tuple[str, int, int]) -> None:
        storage.read_range_into(span[0], span[1], place)

    with ThreadPoolExecutor(_THREADS) as pool:
        done = pool.map(fetch, places, plan.ranges)
        for _, place, (uri, _, _) in zip(done, places, plan.ranges, strict=True):
            yield uri, place


def _class_ids(plan: Plan, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the class ids of labels of the input; -1 where the class is left out."""
    if not plan.labels_uri:
        return labels
    known, ids = np.frombuffer(storage.read_bytes(plan.labels_uri), "<i8").reshape(2, -1)
    return ids[np.searchsorted(known, labels)].astype(np.int64)
