"""Random reads from mapped shards: how many samples a second one core reaches, as JSON lines.

    python benchmarks/shards.py [--samples 120000] [--image-bytes 5000]

Every line is the best of five passes over all samples in random order over all shards, from the
page cache: ``per_s`` by the wall, ``per_cpu_s`` by this process's CPU time. ``digest`` lines also
check content: ``shard`` the SHA-256 of every shard once before the pass (what ``fetch_shard``
does), ``sample`` a CRC-32 of every image.
"""

import argparse
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from plsc.artifacts.shards import Shard, ShardReader, fetch_shard, write_shard
from plsc.storage import sha256_of_file

SAMPLES_PER_SHARD = 4096
ROUNDS = 5


def write(folder: Path, num_samples: int, image_bytes: int) -> list[Shard]:
    """Write shards of random bytes and return what an index says of them."""
    rng = np.random.default_rng(0)
    shards = []
    for first in range(0, num_samples, SAMPLES_PER_SHARD):
        count = min(SAMPLES_PER_SHARD, num_samples - first)
        path = folder / f"{first}.arrow"
        images = [rng.bytes(int(size)) for size in rng.normal(image_bytes, image_bytes / 8, count)]
        keys = np.arange(first, first + count, dtype=np.uint64)
        write_shard(path, images, rng.integers(0, 1000, count), keys)
        shards.append(
            Shard(
                uri=str(path),
                size_bytes=path.stat().st_size,
                sha256=sha256_of_file(path),
                num_samples=count,
            )
        )
    return shards


def read_views(readers: list[ShardReader], order: list[tuple[int, int]]) -> int:
    """Touch nothing but offsets: a view of the image and its label."""
    total = 0
    for shard, row in order:
        reader = readers[shard]
        total += len(reader.image(row)) + reader.label(row)
    return total


def read_copies(readers: list[ShardReader], order: list[tuple[int, int]]) -> int:
    """Read every byte: a copy of the image and its label."""
    total = 0
    for shard, row in order:
        reader = readers[shard]
        total += len(bytes(reader.image(row))) + reader.label(row)
    return total


def read_checked(readers: list[ShardReader], order: list[tuple[int, int]]) -> int:
    """Read every byte: a CRC-32 of the image and its label."""
    total = 0
    for shard, row in order:
        reader = readers[shard]
        total += zlib.crc32(reader.image(row)) + reader.label(row)
    return total


def read_scalars(tables: list[pa.RecordBatch], order: list[tuple[int, int]]) -> int:
    """Do it the way Arrow's documentation would: a scalar per cell."""
    total = 0
    for shard, row in order:
        batch = tables[shard]
        total += batch.column(0)[row].as_buffer().size + batch.column(1)[row].as_py()
    return total


def report(name: str, num_samples: int, work: Callable[[], object], **facts: object) -> None:
    """Run ``work`` and print the best round."""
    walls, cpus = [], []
    for _ in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    rates = {
        "per_s": round(num_samples / min(walls)),
        "per_cpu_s": round(num_samples / min(cpus)),
    }
    print(json.dumps({"benchmark": "shards", "read": name, **facts, **rates}))


def main() -> int:
    """Write shards to a temporary folder, measure, remove them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=120_000)
    parser.add_argument("--image-bytes", type=int, default=5000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plsc-shards-") as name:
        folder = Path(name)
        cache = folder / "cache"
        shards = write(folder, given.samples, given.image_bytes)
        paths = [fetch_shard(shard, cache) for shard in shards]
        readers = [ShardReader(path) for path in paths]
        places = [(n, row) for n, reader in enumerate(readers) for row in range(len(reader))]
        order = [places[n] for n in np.random.default_rng(1).permutation(len(places)).tolist()]
        batches = [pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0) for path in paths]
        facts = {"samples": given.samples, "image_bytes": given.image_bytes}

        def read_verified() -> None:
            fresh = [ShardReader(fetch_shard(shard, cache)) for shard in shards]
            read_copies(fresh, order)

        report("view", len(order), lambda: read_views(readers, order), digest="none", **facts)
        report("copy", len(order), lambda: read_copies(readers, order), digest="none", **facts)
        report("copy", len(order), read_verified, digest="shard", **facts)
        report("view", len(order), lambda: read_checked(readers, order), digest="sample", **facts)
        report("scalar", len(order), lambda: read_scalars(batches, order), digest="none", **facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
