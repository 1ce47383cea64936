"""The largest class count that fits a budget of memory, found by running it, as JSON lines.

    python -m benchmarks.max_classes --budget-gib 2 --batch-size 128 [--variants a,b] ...

Every try is a fresh process that does two real steps; it is ended as soon as it has grown beyond
the budget. ``bytes_per_class`` and ``step_seconds`` are those of the largest try that fitted. JSON
goes to stdout, progress to stderr.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from benchmarks.contenders import VARIANTS, Shape
from benchmarks.measuring import Peak, measure_peak
from benchmarks.memory import OVER_BUDGET, available_bytes
from benchmarks.processes import RankFailedError, on_ranks

__all__ = ["Found", "find_largest", "main"]

_DEFAULT = ["fused", "fused_bf16_momentum", "fused_bf16_state", "fused_8bit_momentum"]
_DEFAULT += ["materialized", "dense"]


@dataclass(frozen=True)
class Found:
    """The largest class count that fits."""

    max_classes: int
    bytes_per_class: int
    tries: int
    step_seconds: float


def find_largest(
    attempt: Callable[[int], Peak | None], budget_bytes: int, *, first: int, tolerance: float
) -> Found:
    """Return the largest class count whose ``attempt`` stays within the budget.

    Memory is close to a straight line over the classes, so each guess is where the line through
    the first and the last that fitted comes just below the budget; where that leaves the bracket,
    its middle is tried.

    Args:
        attempt: What a class count needs, None if that is more than the budget.
        budget_bytes: The budget.
        first: A class count that fits.
        tolerance: How far above the answer, as a fraction, the smallest known misfit may lie.

    Raises:
        ValueError: If ``first`` does not fit.
    """
    fitting: list[tuple[int, Peak]] = []
    misfit = 0
    guess = first
    tries = 0
    while not misfit or misfit > fitting[-1][0] * (1 + tolerance) + 1:
        tries += 1
        peak = attempt(guess)
        if peak is not None and peak.growth_bytes <= budget_bytes:
            fitting.append((guess, peak))
        elif not fitting:
            raise ValueError(f"{first} classes already need more than {budget_bytes} bytes")
        else:
            misfit = guess
        guess = _next_guess(fitting, misfit, budget_bytes, tolerance)
    largest, peak = fitting[-1]
    return Found(largest, round(peak.growth_bytes / largest), tries, round(peak.step_seconds, 4))


def _next_guess(
    fitting: list[tuple[int, Peak]], misfit: int, budget_bytes: int, tolerance: float
) -> int:
    classes, peak = fitting[-1]
    before, bytes_before = 0, 0
    if len(fitting) > 1:
        before, bytes_before = fitting[0][0], fitting[0][1].growth_bytes
    slope = (peak.growth_bytes - bytes_before) / (classes - before)
    room = budget_bytes - peak.growth_bytes
    guess = int((classes + room / slope) * (1 - tolerance / 2)) if slope > 0 else 2 * classes
    smallest = classes + max(1, int(classes * tolerance * 0.9))
    guess = max(guess, smallest)
    return guess if not misfit or guess < misfit else (classes + misfit) // 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Find what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget-gib", type=float, default=2.0)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--embedding-size", type=int, default=512)
    parser.add_argument("--chunk-size", type=int, default=Shape.chunk_size)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--tolerance", type=float, default=0.01, help="fraction (%(default)s)")
    parser.add_argument("--variants", default=",".join(_DEFAULT), help="default: %(default)s")
    given = parser.parse_args(arguments)
    variants = given.variants.split(",")
    if unknown := sorted(set(variants) - set(VARIANTS)):
        parser.error(f"no such variant: {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    budget_bytes = int(given.budget_gib * 2**30)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if budget_bytes > (available := available_bytes(device)):
        parser.error(f"the budget is {budget_bytes} bytes, but only {available} are to be had")
    shape = Shape(0, given.batch_size, given.embedding_size, given.chunk_size)
    for variant in variants:

        def attempt(classes: int, variant: str = variant) -> Peak | None:
            task = replace(shape, classes=classes)
            try:
                (peak,) = on_ranks(1, given.threads, measure_peak, variant, task, 2, budget_bytes)
            except RankFailedError as error:
                if error.exitcode != OVER_BUDGET:
                    raise
                peak = None
            needed = "too much" if peak is None else f"{peak.growth_bytes / 2**20:,.0f} MiB"
            print(f"{variant}: {classes:,} classes need {needed}", file=sys.stderr, flush=True)
            return peak

        first = max(1, budget_bytes // (given.embedding_size * 4 + given.batch_size * 4) // 24)
        found = find_largest(attempt, budget_bytes, first=first, tolerance=given.tolerance)
        line = {"variant": variant, "budget_bytes": budget_bytes, **asdict(found)}
        line |= {"batch_size": given.batch_size, "embedding_size": given.embedding_size}
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
