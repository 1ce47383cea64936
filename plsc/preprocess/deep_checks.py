"""What only reading every byte of a data set tells: digests, rows, labels, keys and counts."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plsc import storage
from plsc.artifacts.shards import Shard, ShardReader, ShardSet, fetch_shard
from plsc.errors import PlscError, ShardError
from plsc.progress import track

__all__ = ["AGAIN", "Problem", "bad_rows", "classes_of", "contents"]

log = logging.getLogger(__name__)

AGAIN = "run preprocess again with the same settings: it makes the same shards"
_CLASSES = pa.schema({"label": pa.int64(), "name": pa.large_string(), "num_images": pa.int64()})
_LARGEST_COUNTED = 1 << 28
"""Classes up to which images are counted: 2 GiB of counters."""


class Problem(NamedTuple):
    """Something that is not as it should be."""

    uri: str
    """Where."""
    found: str
    """What was expected, and what was found."""
    advice: str
    """What to do."""


def contents(dataset: ShardSet, shards: list[Shard], *, is_complete: bool) -> Iterator[Problem]:
    """Yield what is wrong inside the shards; counts are compared if all can be read.

    Args:
        dataset: Whose shards.
        shards: Those to read, in order; one copy at a time lies in the temporary folder.
        is_complete: Whether these are all.
    """
    last = np.zeros((1, 2), np.uint64)
    is_counted = is_complete and dataset.num_classes <= _LARGEST_COUNTED
    counts = np.zeros(dataset.num_classes if is_counted else 0, np.int64)
    watched = track(log, "reading", shards, total=len(shards), unit="shards")
    for shard in watched:
        try:
            labels, keys = _read(shard)
        except PlscError as error:
            is_counted = False
            yield Problem(shard.uri, _cause(error, shard.uri), _delete(dataset))
            continue
        found = list(_wrong(shard, labels, np.concatenate([last, keys]), dataset.num_classes))
        yield from (Problem(shard.uri, what, _delete(dataset)) for what in found)
        last = keys[-1:]
        is_counted = is_counted and not found
        if is_counted:
            counts += np.bincount(labels, minlength=len(counts))
    if is_counted:
        yield from _classes(dataset, counts)


def _read(shard: Shard) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Return the labels, int64 [n], and keys, uint64 [n, 2], of a shard with the right digest."""
    with tempfile.TemporaryDirectory(prefix="plsc-inspect-") as folder:
        reader = ShardReader(fetch_shard(shard, Path(folder)))
        return reader.labels.copy(), reader.keys.astype(np.uint64)


def _wrong(
    shard: Shard,
    labels: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
    num_classes: int,
) -> Iterator[str]:
    """Yield what is wrong with rows; ``keys`` begin with the last key of the shard before."""
    if len(labels) != shard.num_samples:
        yield f"expected {shard.num_samples} samples, found {len(labels)}"
    if labels.min() < 0 or labels.max() >= num_classes:
        low, high = labels.min(), labels.max()
        yield f"expected labels in 0..{num_classes - 1}, found {low}..{high}"
    high, low = keys[:, 0], keys[:, 1]
    if ((high[1:] < high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] < low[:-1]))).any():
        yield "expected keys that never fall, over all shards, found one that does"


def _classes(dataset: ShardSet, counts: npt.NDArray[np.int64]) -> Iterator[Problem]:
    """Yield where the class map or the histogram differs from what the shards hold."""
    images, classes = np.unique(counts, return_counts=True)
    if dict(zip(images.tolist(), classes.tolist(), strict=True)) != dataset.images_per_class:
        yield Problem(dataset.uri, "images_per_class is not what the shards hold", _delete(dataset))
    with tempfile.TemporaryDirectory(prefix="plsc-inspect-") as folder:
        try:
            table = classes_of(dataset, Path(folder))
        except PlscError as error:
            cause = _cause(error, dataset.classes.uri)
            yield Problem(dataset.classes.uri, cause, _delete(dataset))
            return
        labels = table["label"].to_numpy()
        filled = np.flatnonzero(counts)
        if not (
            np.array_equal(labels, filled)
            and np.array_equal(table["num_images"].to_numpy(), counts[filled])
        ):
            yield Problem(
                dataset.classes.uri,
                "its classes or their images are not those of the shards",
                _delete(dataset),
            )


def classes_of(dataset: ShardSet, folder: Path) -> pa.Table:
    """Return the class map: label int64 (ascending), name large_string, num_images int64.

    Args:
        dataset: Whose.
        folder: Local folder for a copy, which stays mapped.

    Raises:
        StorageError: If it cannot be downloaded.
        ShardError: If it is not what the index says.
    """
    uri, path = dataset.classes.uri, folder / "classes.arrow"
    storage.download(uri, path)
    if storage.sha256_of_file(path) != dataset.classes.sha256:
        raise ShardError(f"{uri}: its digest is not the index's: it was altered")
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
        table.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{uri}: expected an Arrow file of classes, but {error}") from error
    if not table.schema.equals(_CLASSES) or any(column.null_count for column in table.columns):
        raise ShardError(
            f"{uri}: expected label, name and num_images of all classes, found"
            f" {table.schema.names}, of other types, or nulls"
        )
    return table


def bad_rows(dataset: ShardSet) -> Iterator[Problem]:
    """Yield a difference between the number of bad rows told and kept.

    Raises:
        StorageError: If reading fails on the way.
    """
    quarantine = dataset.quarantine
    if not quarantine.num_rows or not storage.exists(quarantine.uri):
        return
    with storage.open_reader(quarantine.uri) as reader:
        count = sum(1 for _ in reader)
    if count != quarantine.num_rows:
        yield Problem(
            quarantine.uri,
            f"expected {quarantine.num_rows} bad rows, found {count}",
            f"training does not need it; {_delete(dataset)}",
        )


def _cause(error: PlscError, uri: str) -> str:
    """Return an error's message without what stands beside it anyway."""
    return str(error).removeprefix(f"{uri}: ").partition(": delete ")[0]


def _delete(dataset: ShardSet) -> str:
    folder_uri = dataset.uri.rpartition("/")[0]
    return f"delete {folder_uri} and run preprocess again: it makes the same shards"
