"""Equal parts: shuffled rows cut into shards that differ in size by at most one sample."""

import logging
from itertools import pairwise
from pathlib import Path

from plsc import storage
from plsc.artifacts.shards import Shard, write_shard
from plsc.preprocess.shuffle import Shuffled
from plsc.progress import track

__all__ = ["equal_ranges", "write_shards"]

log = logging.getLogger(__name__)


def equal_ranges(num_samples: int, *, largest: int) -> list[range]:
    """Return as few ranges as cover 0..num_samples - 1 with at most ``largest`` rows each.

    The first ones have one row more than the last ones, if they cannot all have as many.
    """
    count = -(-num_samples // largest)
    cuts = [-(-num_samples * n // count) for n in range(count + 1)]
    return [range(start, stop) for start, stop in pairwise(cuts)]


def write_shards(
    rows: Shuffled, *, samples_per_shard: int, folder_uri: str, scratch: Path
) -> list[Shard]:
    """Write ``rows`` as shards into ``folder_uri`` and return what an index says of them.

    Args:
        rows: What to write.
        samples_per_shard: Largest number of samples in one.
        folder_uri: Where they go.
        scratch: Local folder with room for one shard.

    Raises:
        StorageError: If this disk or the store has no room, or refuses.
    """
    ranges = equal_ranges(len(rows), largest=samples_per_shard)
    numbered = track(log, "writing", enumerate(ranges), total=len(ranges), unit="shards")
    return [_write(rows, part, f"shard-{n:05d}.arrow", folder_uri, scratch) for n, part in numbered]


def _write(rows: Shuffled, part: range, name: str, folder_uri: str, scratch: Path) -> Shard:
    path = scratch / name
    span = slice(part.start, part.stop)
    write_shard(path, rows.images(part), rows.labels[span], rows.keys[span])
    shard = Shard(
        uri=storage.join(folder_uri, name),
        size_bytes=path.stat().st_size,
        sha256=storage.sha256_of_file(path),
        num_samples=len(part),
    )
    storage.upload(path, shard.uri)
    path.unlink()
    return shard
