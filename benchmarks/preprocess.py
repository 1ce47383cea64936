"""Preprocess, ours against the seed's SQLite shuffle and a floor: JSON lines and a table.

    python -m benchmarks.preprocess --rows 120000 --image-bytes 5000 [--skip-sqlite] [--s3] ...
    python -m benchmarks.preprocess --scaling 100000,1000000 [--memory-mib 64] ...

Every variant runs in a process of its own, one after the other, round after round, on the same
parts, which the page cache holds if it can; ``os.sync`` before each, its output removed after it.
``wall_seconds`` and ``cpu_seconds`` (all processes together) are those of the best round, without
the start of the first process and its imports (``process_seconds`` has them); ``peak_rss_bytes`` is
that of the largest single process, ``worker_peak_rss_bytes`` that of the largest besides the first.
The last line, always ``ours``, also holds ``ratios`` and, beside them, ``targets``. JSON goes to
stdout, progress and the table to stderr.

Variants: ``floor_copy_decode`` reads, decodes base64, writes and syncs; ``sqlite_seed`` does what
the seed's tool does, ``sqlite_mended`` the same without its two needless costs (``sqlite_seed.py``
names them); ``ours`` is the preprocess stage. With ``--s3`` the input and the store of
``ours`` lie in a local SeaweedFS, whose own CPU time is not counted.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.base64_parts import Parts, check_room, read_through
from benchmarks.observing import Observed, observe
from benchmarks.preprocess_variants import VARIANTS
from benchmarks.sqlite_seed import NUM_RANKS
from benchmarks.workplace import Workplace, workplace

__all__ = ["compare", "main", "run", "scale", "table"]

_OUTPUT_SHARES = {
    "floor_copy_decode": 0.75,
    "sqlite_seed": 2.2,
    "sqlite_mended": 2.2,
    "ours": 1.9,
}
"""Room that a variant's output takes, as a share of the input (ours: runs and shards at once)."""
_TARGETS = {
    "sqlite_seed_over_ours_wall": ">= 10",
    "sqlite_seed_over_ours_cpu": ">= 10",
    "ours_over_floor_copy_decode_wall": "<= 4",
    "cpu_per_row_growth": "<= 1.15",
    "wall_per_row_growth": "<= 1.15",
    "worker_memory_growth": "0.9 .. 1.1",
}
_COLUMNS = {
    "variant": "variant",
    "rows": "rows",
    "rows_per_s": "rows/s",
    "wall_seconds": "wall s",
    "wall_seconds_median": "median s",
    "cpu_seconds": "CPU s",
    "peak_rss_bytes": "peak MiB",
    "worker_peak_rss_bytes": "worker MiB",
    "disk_peak_bytes": "disk MiB",
}


def run(
    place: Workplace, parts: Parts, variants: Sequence[str], *, rounds: int, settings: list[str]
) -> list[dict[str, Any]]:
    """Make the input, measure and return one line per variant, in the order of ``VARIANTS``.

    Args:
        place: Where.
        parts: The input.
        variants: Of ``VARIANTS``.
        rounds: Times that each variant runs, >= 1.
        settings: Command line of ``ours``.

    Raises:
        ValueError: If the disk has too little room.
        RuntimeError: If a variant fails or loses a row.
    """
    check_room(place.folder, _needed_bytes(parts, variants, rounds, is_s3=place.is_s3))
    seen: dict[str, list[Observed]] = {name: [] for name in VARIANTS if name in variants}
    _tell(f"input: {parts.rows:,} rows, about {parts.size_bytes / 2**20:,.0f} MiB")
    with place.holding(parts) as paths:
        for number in range(1, rounds + 1):
            for variant, found in seen.items():
                place.clear()
                read_through(paths)
                found.append(_measured(place, parts, variant, settings))
                wall = found[-1].said["wall_seconds"]
                _tell(f"round {number} of {rounds}: {variant} {wall:.2f} s")
        place.clear()
    facts = {"parts": parts.num_parts, "image_bytes": parts.image_bytes, "classes": parts.classes}
    facts |= {"rounds": rounds, "cores": len(os.sched_getaffinity(0))}
    return [_line(name, parts.rows, found) | facts for name, found in seen.items()]


def _measured(place: Workplace, parts: Parts, variant: str, settings: list[str]) -> Observed:
    data, out = place.uris(variant)
    arguments = [variant, "--data", data, "--out", out, *(settings if variant == "ours" else [])]
    found = observe("benchmarks.preprocess_variants", arguments, folder=place.folder)
    expected = parts.rows
    if variant.startswith("sqlite"):
        expected = -(-parts.rows // NUM_RANKS) * NUM_RANKS
    if found.said["rows"] != expected:
        raise RuntimeError(
            f"{variant}: expected {expected} rows at the end, found {found.said['rows']}"
        )
    return found


def _needed_bytes(parts: Parts, variants: Sequence[str], rounds: int, *, is_s3: bool) -> int:
    """Return how much room the input and the output take; a server frees no room in between."""
    shares = [_OUTPUT_SHARES[name] for name in variants]
    inside = (1 + rounds * _OUTPUT_SHARES["ours"]) if is_s3 and "ours" in variants else 0
    return int(parts.size_bytes * (1 + max(shares) + inside))


def _line(variant: str, rows: int, found: list[Observed]) -> dict[str, Any]:
    """Return what is known of one variant."""
    walls = [one.said["wall_seconds"] for one in found]
    cpus = [one.said["cpu_seconds"] for one in found]
    first = max(one.first_peak_bytes for one in found)
    worker = max(one.child_peak_bytes for one in found)
    return {
        "benchmark": "preprocess",
        "variant": variant,
        "rows": rows,
        "rows_per_s": round(rows / min(walls)),
        "wall_seconds": round(min(walls), 3),
        "wall_seconds_median": round(statistics.median(walls), 3),
        "cpu_seconds": round(min(cpus), 3),
        "cpu_seconds_median": round(statistics.median(cpus), 3),
        "cpu_us_per_row": round(min(cpus) / rows * 1e6, 2),
        "process_seconds": round(min(one.process_seconds for one in found), 3),
        "peak_rss_bytes": max(first, worker),
        "worker_peak_rss_bytes": worker or first,
        "total_peak_rss_bytes": max(one.total_peak_bytes for one in found),
        "disk_peak_bytes": max(one.disk_peak_bytes for one in found),
    }


def scale(
    place: Workplace, sizes: Sequence[Parts], *, rounds: int, settings: list[str]
) -> list[dict[str, Any]]:
    """Measure ``ours`` at several sizes; the last line holds how cost and memory grow.

    Args:
        place: Where.
        sizes: The inputs, from small to large; each is made and removed in turn.
        rounds: Times that each size runs.
        settings: Command line of ``ours``.

    Raises:
        ValueError: If the disk has too little room for the largest.
        RuntimeError: If a run fails or loses a row.
    """
    needed = [_needed_bytes(parts, ["ours"], rounds, is_s3=place.is_s3) for parts in sizes]
    check_room(place.folder, max(needed))
    lines: list[dict[str, Any]] = []
    for parts in sizes:
        lines += run(place, parts, ["ours"], rounds=rounds, settings=settings)
    first, last = lines[0], lines[-1]
    growth = last["rows"] / first["rows"]
    return _concluded(
        lines,
        {
            "cpu_per_row_growth": last["cpu_seconds"] / first["cpu_seconds"] / growth,
            "wall_per_row_growth": last["wall_seconds"] / first["wall_seconds"] / growth,
            "worker_memory_growth": last["worker_peak_rss_bytes"] / first["worker_peak_rss_bytes"],
        },
    )


def compare(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines with the ratios of the others to ``ours`` in the last."""
    found = {line["variant"]: line for line in lines}
    if "ours" not in found:
        return lines
    ours, ratios = found["ours"], {}
    for name, line in found.items():
        for what in ("wall", "cpu"):
            ratio = line[f"{what}_seconds"] / ours[f"{what}_seconds"]
            if name.startswith("sqlite"):
                ratios[f"{name}_over_ours_{what}"] = ratio
            elif name.startswith("floor"):
                ratios[f"ours_over_{name}_{what}"] = 1 / ratio
    return _concluded(lines, ratios)


def _concluded(lines: list[dict[str, Any]], ratios: dict[str, float]) -> list[dict[str, Any]]:
    targets = {name: _TARGETS[name] for name in ratios if name in _TARGETS}
    rounded = {name: round(ratio, 3) for name, ratio in ratios.items()}
    return [*lines[:-1], lines[-1] | {"ratios": rounded, "targets": targets}]


def table(lines: list[dict[str, Any]]) -> str:
    """Return lines of JSON as a table to read, and the ratios below it."""
    rows = [list(_COLUMNS.values())]
    rows += [[_cell(key, line[key]) for key in _COLUMNS] for line in lines]
    widths = [max(len(row[n]) for row in rows) for n in range(len(_COLUMNS))]
    texts = [
        row[0].ljust(widths[0])
        + "".join("  " + row[n].rjust(widths[n]) for n in range(1, len(widths)))
        for row in rows
    ]
    texts.insert(1, "-" * len(texts[0]))
    last = lines[-1]
    for name, ratio in last.get("ratios", {}).items():
        target = last["targets"].get(name)
        texts.append(f"{name}: {ratio:.2f}" + (f" (target {target})" if target else ""))
    return "\n".join(texts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for."""
    parser = _parser()
    given = parser.parse_args(arguments)
    variants = [name for name in given.variants.split(",") if name]
    if unknown := sorted(set(variants) - set(VARIANTS)) or (not variants and [""]):
        parser.error(f"no such variant: {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    if given.skip_sqlite:
        variants = [name for name in variants if not name.startswith("sqlite")]
    counts = sorted(int(count) for count in given.scaling.split(",") if count) or [given.rows]
    if min(counts) < given.parts or given.rounds < 1:
        parser.error("there must be at least one round, and one row for each part")
    sizes = [Parts(rows, given.image_bytes, given.parts, given.classes) for rows in counts]
    settings = _settings(given, smallest=sizes[0])
    try:
        with workplace(given.folder, is_s3=given.s3) as place:
            if given.scaling:
                lines = scale(place, sizes, rounds=given.rounds, settings=settings)
            else:
                measured = run(place, sizes[0], variants, rounds=given.rounds, settings=settings)
                lines = compare(measured)
    except (ValueError, RuntimeError) as error:
        _tell(f"error: {error}")
        return 1
    for line in lines:
        print(json.dumps(line), flush=True)
    _tell("\n" + table(lines))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=120_000)
    parser.add_argument("--image-bytes", type=int, default=5000, help="mean size of a JPEG")
    parser.add_argument("--parts", type=int, default=8, help="files of the input")
    parser.add_argument("--classes", type=int, default=0, help="0: rows / 50")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="default: %(default)s")
    parser.add_argument("--skip-sqlite", action="store_true", help="for large inputs")
    parser.add_argument(
        "--scaling", default="", metavar="ROWS,ROWS", help="only ours, at each of these sizes"
    )
    parser.add_argument("--workers", type=int, default=0, help="of ours; 0: one for each core")
    parser.add_argument(
        "--memory-mib",
        type=int,
        default=0,
        help="of each worker; 0: 512; with --scaling what every size fills",
    )
    parser.add_argument("--samples-per-shard", type=int, default=4096)
    parser.add_argument("--s3", action="store_true", help="ours from and to a local S3 server")
    parser.add_argument(
        "--folder", type=Path, help="where to make the folder to work in (default: TMPDIR)"
    )
    return parser


def _settings(given: argparse.Namespace, smallest: Parts) -> list[str]:
    """Return the command line of ``ours``."""
    workers = given.workers or len(os.sched_getaffinity(0))
    memory_mib = given.memory_mib or 512
    if given.scaling and not given.memory_mib:
        # What fills a task's memory at every size: its share of the smallest, and two shards.
        share = smallest.rows / (8 * workers) + 2 * given.samples_per_shard
        held = max(share, 4 * given.samples_per_shard) * smallest.image_bytes
        memory_mib = max(16, round(held / 2**20))
    return [
        f"--workers={workers}",
        f"--memory-mib={memory_mib}",
        f"--samples-per-shard={given.samples_per_shard}",
    ]


def _cell(key: str, value: object) -> str:
    if key.endswith("_bytes"):
        return f"{int(str(value)) / 2**20:,.0f}"
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
