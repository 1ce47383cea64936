"""A step of the head, ours against references: time and memory, as JSON lines and a table.

    python -m benchmarks.head --classes 500000 --batch-size 128 [--ranks 1] [--variants a,b] ...

Time: all variants in one process per rank, one step of each in turn, round after round; minima and
medians. Memory: each variant alone in fresh processes; ``bytes_per_class`` is the peak growth of
the largest rank over the moment before the head existed, divided by its classes: weights and
optimizer state included. JSON goes to stdout, progress and the table to stderr. What the variants
are: ``contenders.py`` and ``materialized.py``. A machine that does something else in the meantime
spoils the medians first.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from benchmarks.contenders import VARIANTS, Shape, facts_of, is_reference
from benchmarks.measuring import Peak, measure_peak, time_rounds
from benchmarks.memory import available_bytes
from benchmarks.processes import num_cores, on_ranks

__all__ = ["main", "run"]

# Which bare products bound a variant from below: with its logits kept there are three.
_FLOORS = {"fused_cached": "floor_3gemm", "dense": "floor_3gemm", "materialized": "floor_3gemm"}
_USABLE = 0.85
_COLUMNS = {
    "variant": "variant",
    "step_seconds_min": "min s",
    "step_seconds_median": "median s",
    "ratio_to_materialized": "/ materialized",
    "ratio_to_fused": "/ fused",
    "ratio_to_floor": "/ floor",
    "bytes_per_class": "B/class",
}


def run(
    shape: Shape,
    *,
    ranks: int,
    rounds: int,
    variants: Sequence[str],
    threads: int = 0,
    is_memory_measured: bool = True,
    is_rebuilt: bool = False,
) -> list[dict[str, Any]]:
    """Measure and return one line per variant.

    Args:
        shape: The size of the task.
        ranks: Processes that share the classes; ``shape.batch_size`` is a multiple of it.
        rounds: Timed steps of each variant. 0: none are timed.
        variants: Of ``VARIANTS``.
        threads: CPU threads of each rank; 0 divides the cores among them.
        is_memory_measured: Whether to run each variant once more, alone.
        is_rebuilt: Whether a variant exists only while it is its turn; so it is anyway when memory
            was measured and is too small for all of them.
    """
    threads = threads or max(1, num_cores() // ranks)
    peaks: dict[str, Peak] = {}
    for variant in variants if is_memory_measured else []:
        found = on_ranks(ranks, threads, measure_peak, variant, shape)
        peaks[variant] = max(found, key=lambda peak: peak.growth_bytes)
        _tell(f"memory: {variant} {_bytes_per_class(peaks[variant])} B/class")
    seconds: dict[str, list[float]] = {}
    if rounds:
        is_rebuilt = is_rebuilt or not _fits_together(peaks, ranks)
        timed = partial(time_rounds, is_rebuilt=is_rebuilt)
        seconds = on_ranks(ranks, threads, timed, list(variants), shape, rounds)[0]
    facts: dict[str, Any] = {"ranks": ranks, "threads": threads, "rounds": rounds}
    facts |= {"device": _device_name(), "torch": str(torch.__version__)}
    return [_line(name, shape, seconds, peaks.get(name)) | facts for name in variants]


def _line(
    variant: str, shape: Shape, seconds: dict[str, list[float]], peak: Peak | None
) -> dict[str, Any]:
    """Return what is known of one variant."""
    minima = {name: min(times) for name, times in seconds.items()}
    times = seconds.get(variant)
    floor = _FLOORS.get(variant, "floor_4gemm")
    line: dict[str, Any] = {
        "variant": variant,
        **asdict(shape),
        "step_seconds_min": None if times is None else round(min(times), 5),
        "step_seconds_median": None if times is None else round(statistics.median(times), 5),
        "bytes_per_class": None if peak is None else _bytes_per_class(peak),
        "ratio_to_materialized": _ratio(minima, variant, "materialized"),
        "ratio_to_fused": _ratio(minima, variant, "fused"),
        "ratio_to_floor": None if "sampled" in variant else _ratio(minima, variant, floor),
        "floor": floor,
        **facts_of(variant),
    }
    if peak is not None and "floor" not in variant:
        line["losses"] = [round(loss, 4) for loss in peak.losses]
    return line


def table(lines: list[dict[str, Any]]) -> str:
    """Return lines of JSON as a table to read."""
    keys = list(_COLUMNS)
    rows = [list(_COLUMNS.values())] + [[_cell(line[key]) for key in keys] for line in lines]
    widths = [max(len(row[n]) for row in rows) for n in range(len(keys))]
    first = lines[0]
    title = (
        f"{first['classes']:,} classes, batch {first['batch_size']}, embeddings of "
        f"{first['embedding_size']}, {first['ranks']} rank(s) with {first['threads']} thread(s), "
        f"{first['device']}, torch {first['torch']}; ratios of minima of {first['rounds']} rounds"
    )
    texts = [
        row[0].ljust(widths[0])
        + "".join("  " + row[n].rjust(widths[n]) for n in range(1, len(keys)))
        for row in rows
    ]
    return "\n".join([title, "", texts[0], "-" * len(texts[0]), *texts[1:]])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=100_000)
    parser.add_argument("--batch-size", type=int, default=128, help="of a step over all ranks")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--embedding-size", type=int, default=512)
    parser.add_argument("--chunk-size", type=int, default=Shape.chunk_size)
    parser.add_argument("--rounds", type=int, default=5, help="0: measure memory only")
    parser.add_argument("--threads", type=int, default=0, help="per rank; 0: cores / ranks")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="default: %(default)s")
    parser.add_argument("--skip-memory", action="store_true", help="measure time only")
    parser.add_argument(
        "--rebuild", action="store_true", help="keep one variant in memory at a time (slower)"
    )
    given = parser.parse_args(arguments)
    variants = given.variants.split(",")
    if unknown := sorted(set(variants) - set(VARIANTS)):
        parser.error(f"no such variant: {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    if given.batch_size % given.ranks:
        parser.error(f"batch size {given.batch_size} is no multiple of {given.ranks} ranks")
    if given.ranks > 1 and "dense" in variants:
        _tell("dense is left out: it knows one rank only")
        variants.remove("dense")
    shape = Shape(given.classes, given.batch_size, given.embedding_size, given.chunk_size)
    lines = run(
        shape,
        ranks=given.ranks,
        rounds=given.rounds,
        variants=variants,
        threads=given.threads,
        is_memory_measured=not given.skip_memory,
        is_rebuilt=given.rebuild,
    )
    for line in lines:
        print(json.dumps(line), flush=True)
    _tell("\n" + table(lines))
    return 0


def _fits_together(peaks: dict[str, Peak], ranks: int) -> bool:
    """Return whether all of ours and, on top, the largest of all fit into the memory there is."""
    if not peaks:
        return True
    ours = sum(peak.growth_bytes for name, peak in peaks.items() if not is_reference(name))
    largest = max(peak.growth_bytes for peak in peaks.values())
    fits = (ours + largest) * ranks < _USABLE * available_bytes(_device())
    if not fits:
        _tell("memory is too small for all variants at once: each is made anew in every round")
    return fits


def _bytes_per_class(peak: Peak) -> int:
    return round(peak.growth_bytes / max(1, peak.num_local_classes))


def _ratio(minima: dict[str, float], variant: str, to: str) -> float | None:
    if variant not in minima or to not in minima:
        return None
    return round(minima[variant] / minima[to], 3)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
