"""The training loader against bare JPEG decoding, on one core: rows a second, as JSON lines.

    python -m benchmarks.loader [--rows 40000] [--rounds 5] [--core 0] [--variants a,b]

Variants, each round of each in a fresh process pinned to one core, its worker included, all of
them in turn, round after round:

- ``mapped_random_read_*``: random rows of mapped shards: ``views`` of the bytes and the label,
  ``copies`` of them, and Arrow's own ``scalars``; ``mapped_random_read`` is ``copies``;
- ``floor_jpeg_decode``: ``simplejpeg.decode_jpeg`` of bytes in memory, nothing else;
- ``loader_local``: ``Loader`` with one worker, mirroring half of the images; the second epoch,
  when all shards are in its cache and their digests are checked;
- ``loader_s3``: the same from an S3 server (SeaweedFS, on any core) with an empty cache that holds
  two windows of four: the first epoch, from its first batch on, when the first window is in.

``rows_per_s`` and ``cpu_seconds`` are those of the best round; ``ratio_to_floor`` and
``ratio_to_local`` are medians over the rounds, each against its neighbors in the same round;
``cpu_ratio_to_floor`` compares CPU seconds, which other processes on the core disturb less.
``peak_rss_bytes`` adds up a process and its worker.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import simplejpeg
from PIL import Image, ImageFilter

from pipelines import services
from plsc import storage
from plsc.artifacts.shards import Shard, ShardReader, ShardSet, shard_content
from plsc.conf import compose
from plsc.train.loader import Loader

__all__ = ["VARIANTS", "main", "measure", "write_shards"]

IMAGE_SIZE = 112
WINDOWS = 4
BATCH_SIZE = 256


def write_shards(folder: Path, rows: int, shards: int) -> list[Path]:
    """Write ``rows`` different JPEGs of about 5 KB as shards and return their files."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1024, 1024, 3), np.uint8)
    texture = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.6)))
    texture = np.clip((texture.astype(np.int16) - 128) * 3 + 128, 0, 255).astype(np.uint8)
    paths = []
    for number in range(shards):
        count = rows // shards + (number < rows % shards)
        corners = rng.integers(0, 1024 - IMAGE_SIZE, (count, 2))
        images = [
            simplejpeg.encode_jpeg(
                np.ascontiguousarray(texture[y : y + IMAGE_SIZE, x : x + IMAGE_SIZE]),
                quality=85,
                colorsubsampling="420",
            )
            for y, x in corners
        ]
        keys = np.stack([np.full(count, number), np.arange(count)], axis=1).astype(np.uint64)
        paths.append(folder / f"shard-{number:05d}.arrow")
        paths[-1].write_bytes(shard_content(images, rng.integers(0, 1000, count), keys))
    return paths


def dataset_of(paths: Sequence[Path], uri: str) -> ShardSet:
    """Return what the loader needs of an index of these files, which lie at ``uri``."""
    shards = [
        Shard(
            uri=storage.join(uri, path.name),
            size_bytes=path.stat().st_size,
            sha256=storage.sha256_of_file(path),
            num_samples=len(ShardReader(path)),
        )
        for path in paths
    ]
    return ShardSet.model_construct(
        uri=storage.join(uri, "index.json"), shards=shards, image_size=IMAGE_SIZE, num_classes=1000,
        num_samples=sum(shard.num_samples for shard in shards),
    )  # fmt: skip


def order_of(readers: Sequence[ShardReader]) -> list[tuple[int, int]]:
    """Return all rows of all shards in random order."""
    places = [(number, row) for number, reader in enumerate(readers) for row in range(len(reader))]
    return [places[n] for n in np.random.default_rng(1).permutation(len(places)).tolist()]


def read_randomly(paths: Sequence[Path], way: str) -> dict[str, float]:
    """Read every row once, in random order."""
    readers = [ShardReader(path) for path in paths]
    tables = [pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0) for path in paths]
    order = order_of(readers)

    def read_views() -> None:
        for shard, row in order:
            reader = readers[shard]
            reader.image(row)
            reader.label(row)

    def read_copies() -> None:
        for shard, row in order:
            reader = readers[shard]
            bytes(reader.image(row))
            reader.label(row)

    def read_scalars() -> None:
        for shard, row in order:
            table = tables[shard]
            table.column(0)[row].as_buffer()
            table.column(1)[row].as_py()

    ways = {"views": read_views, "copies": read_copies, "scalars": read_scalars}
    read_copies()  # the pages are in memory from here on
    return _timed(len(order), ways[way])


def decode_barely(paths: Sequence[Path]) -> dict[str, float]:
    """Decode every row once, in random order, from bytes in memory."""
    readers = [ShardReader(path) for path in paths]
    contents = [bytes(readers[shard].image(row)) for shard, row in order_of(readers)]

    def decode() -> None:
        for content in contents:
            simplejpeg.decode_jpeg(content)

    return _timed(len(contents), decode)


def load(paths: Sequence[Path], uri: str, cache: Path) -> dict[str, float]:
    """Load an epoch and measure from its first batch on."""
    dataset = dataset_of(paths, uri)
    window = -(-len(paths) // WINDOWS)
    limit = 0.0
    if storage.is_remote(uri):
        limit = 2.001 * window * max(shard.size_bytes for shard in dataset.shards) / 2**30
    config = compose(
        "faces", "run_id=benchmark", "model.name=glyphnet", f"image_size={IMAGE_SIZE}",
        f"train.global_batch_size={BATCH_SIZE}", f"train.loader.window_shards={window}",
        "train.loader.workers=1", f"train.loader.cache_path={cache}",
        f"train.loader.cache_gib={limit}", "train.augment.flip=true", "train.ranks=1",
    )  # fmt: skip
    loader = Loader(dataset, config)
    steps = loader.sampler.steps_per_epoch
    start, stop = (0, steps) if storage.is_remote(uri) else (steps, 2 * steps)
    rows, wall, cpu = 0, 0.0, 0.0
    for batch in loader.batches(range(stop)):
        rows += len(batch.images)
        if batch.step == start:
            rows, wall, cpu = 0, time.perf_counter(), _cpu_seconds()
        if batch.step + 1 == stop:
            seconds, used = time.perf_counter() - wall, _cpu_seconds() - cpu
    waited_s = round(loader.waited_s, 3)
    return {"rows": rows, "seconds": seconds, "cpu_seconds": used, "waited_s": waited_s}


def _timed(rows: int, work: Callable[[], object]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), _cpu_seconds()
    work()
    seconds = time.perf_counter() - wall
    return {"rows": rows, "seconds": seconds, "cpu_seconds": _cpu_seconds() - cpu}


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its workers."""
    process = psutil.Process()
    times = [one.cpu_times() for one in (process, *process.children())]
    return sum(time.user + time.system for time in times)


VARIANTS: dict[str, Callable[[Sequence[Path], str, Path], dict[str, float]]] = {
    "mapped_random_read": lambda paths, _, __: read_randomly(paths, "copies"),
    "mapped_random_read_views": lambda paths, _, __: read_randomly(paths, "views"),
    "mapped_random_read_scalars": lambda paths, _, __: read_randomly(paths, "scalars"),
    "floor_jpeg_decode": lambda paths, _, __: decode_barely(paths),
    "loader_local": load,
    "loader_s3": load,
}


def measure(variant: str, folder: Path, uri: str, core: int) -> dict[str, Any]:
    """Run one round of a variant in this process, on one core."""
    os.sched_setaffinity(0, {core})
    paths = sorted(folder.glob("shard-*.arrow"))
    if variant != "loader_s3":
        found = VARIANTS[variant](paths, str(folder), folder / "cache")
    else:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            found = VARIANTS[variant](paths, uri, Path(cache))
    peaks = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"variant": variant, **found, "peak_rss_bytes": 1024 * sum(p.ru_maxrss for p in peaks)}


def rounds_of(variants: Sequence[str], rounds: int, options: Sequence[str]) -> dict[str, list[Any]]:
    """Return what each round of each variant measured."""
    measured: dict[str, list[Any]] = {variant: [] for variant in variants}
    for number in range(rounds):
        for variant in variants:
            command = [sys.executable, "-m", "benchmarks.loader", "--round-of", variant, *options]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            measured[variant].append(json.loads(ended.stdout.splitlines()[-1]))
            rate = measured[variant][-1]["rows"] / measured[variant][-1]["seconds"]
            print(f"round {number + 1}: {variant}: {rate:.0f} rows/s", file=sys.stderr)
    return measured


def summary(measured: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Yield one line per variant."""
    rates = {
        variant: [found["rows"] / found["seconds"] for found in of_rounds]
        for variant, of_rounds in measured.items()
    }
    for variant, of_rounds in measured.items():
        best = max(range(len(of_rounds)), key=rates[variant].__getitem__)
        line = {
            "benchmark": "loader",
            "variant": variant,
            "rows": of_rounds[best]["rows"],
            "rows_per_s": round(rates[variant][best]),
            "rows_per_s_median": round(statistics.median(rates[variant])),
            "cpu_seconds": round(of_rounds[best]["cpu_seconds"], 3),
            "peak_rss_bytes": max(found["peak_rss_bytes"] for found in of_rounds),
        }
        for name, other in (("floor", "floor_jpeg_decode"), ("local", "loader_local")):
            if variant.startswith("loader") and variant != other and other in rates:
                pairs = zip(rates[variant], rates[other], strict=True)
                line[f"ratio_to_{name}"] = round(statistics.median(a / b for a, b in pairs), 3)
                line[f"best_ratio_to_{name}"] = round(max(rates[variant]) / max(rates[other]), 3)
        if variant.startswith("loader") and "floor_jpeg_decode" in measured:
            floors = measured["floor_jpeg_decode"]
            line["cpu_ratio_to_floor"] = round(_cpu_of_a_row(floors) / _cpu_of_a_row(of_rounds), 3)
        if "waited_s" in of_rounds[best]:
            line["waited_s"] = of_rounds[best]["waited_s"]
        yield line


def _cpu_of_a_row(of_rounds: Sequence[dict[str, Any]]) -> float:
    return min(found["cpu_seconds"] / found["rows"] for found in of_rounds)


@contextmanager
def object_store(folder: Path, *, is_needed: bool) -> Iterator[str]:
    """Run an S3 server that holds the shards of ``folder``, and yield where."""
    if not is_needed:
        yield ""
        return
    state = folder / "services"
    try:
        os.environ.update(services.up(state, with_triton=False).environment())
        storage.ensure_bucket("s3://plsc")
        for path in folder.glob("shard-*.arrow"):
            storage.upload(path, f"s3://plsc/shards/{path.name}")
        yield "s3://plsc/shards"
    finally:
        services.down(state)


def main() -> int:
    """Write shards to a temporary folder, measure, remove them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=48_000)
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--round-of", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--uri", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.round_of:
        print(json.dumps(measure(given.round_of, given.folder, given.uri, given.core)))
        return 0
    variants = given.variants.split(",")
    with tempfile.TemporaryDirectory(prefix="plsc-loader-") as name:
        folder = Path(name)
        paths = write_shards(folder, given.rows, given.shards)
        image_bytes = sum(path.stat().st_size for path in paths) // given.rows
        with object_store(folder, is_needed="loader_s3" in variants) as uri:
            options = [f"--folder={folder}", f"--uri={uri}", f"--core={given.core}"]
            measured = rounds_of(variants, given.rounds, options)
        for line in summary(measured):
            print(json.dumps({**line, "image_bytes": image_bytes, "shards": given.shards}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
