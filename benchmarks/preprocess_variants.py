"""One variant of the preprocess benchmark, alone in its process, which prints what it took.

    python -m benchmarks.preprocess_variants VARIANT --data URI --out URI [--workers N] ...

Time begins when everything that the variant imports is there; CPU seconds include those of all
processes that it started and waited for.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pybase64

from benchmarks import sqlite_seed
from benchmarks.base64_parts import IMAGE_SIZE

__all__ = ["VARIANTS", "copy_decoded", "main"]

VARIANTS = ("floor_copy_decode", "sqlite_seed", "sqlite_mended", "ours")


def copy_decoded(data: Path, out: Path) -> int:
    """Read every row of every part, write its decoded image to one file, and make it durable.

    It is the least that any preprocess of such input can do.

    Args:
        data: Folder with ``file_list.txt`` and the parts that it names.
        out: Folder for the file ``images``.

    Returns:
        Number of rows.
    """
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    with (out / "images").open("wb", buffering=1 << 20) as images:
        for name in (data / "file_list.txt").read_text().split():
            with (data / name).open("rb", buffering=1 << 20) as part:
                for line in part:
                    images.write(pybase64.b64decode(line.partition(b"\t")[0], validate=True))
                    count += 1
        images.flush()
        os.fsync(images.fileno())
    return count


def _prepared(given: argparse.Namespace) -> Callable[[], int]:
    """Import what the variant needs and return what remains to be done."""
    if given.variant == "floor_copy_decode":
        return lambda: copy_decoded(Path(given.data), Path(given.out))
    if given.variant.startswith("sqlite"):
        is_mended = given.variant == "sqlite_mended"
        return lambda: sqlite_seed.shuffle(Path(given.data), Path(given.out), is_mended=is_mended)
    from plsc import doorway
    from plsc.conf import compose
    from plsc.preprocess.stage import run

    config = compose(
        "tiny",
        doorway.assign("data_uri", given.data),
        doorway.assign("store_uri", given.out),
        "run_id=benchmark",
        f"image_size={IMAGE_SIZE}",
        f"preprocess.samples_per_shard={given.samples_per_shard}",
        f"preprocess.workers={given.workers}",
        f"preprocess.memory_mib={given.memory_mib}",
    )
    return lambda: run(config).num_samples


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> int:
    """Run the variant that the command line names and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--memory-mib", type=int, default=512)
    parser.add_argument("--samples-per-shard", type=int, default=4096)
    work = _prepared(parser.parse_args())
    cpu, wall = _cpu_seconds(), time.perf_counter()
    rows = work()
    wall = time.perf_counter() - wall
    print(json.dumps({"rows": rows, "wall_seconds": wall, "cpu_seconds": _cpu_seconds() - cpu}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
