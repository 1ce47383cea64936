"""What runs inside the benchmark's processes: rounds of timed steps, and one variant's memory."""

import gc
import sys
import time
from dataclasses import dataclass, replace

import torch

from benchmarks.contenders import Batch, Centers, Contender, Fused, Shape, is_reference, make
from benchmarks.memory import PeakGrowth
from plsc.train.partition import partition_classes
from plsc.train.process_group import Ranks

__all__ = ["Peak", "measure_peak", "time_rounds"]

_WARM_UP_CLASSES = 64


@dataclass(frozen=True)
class Peak:
    """What one variant, alone in its process, needed."""

    growth_bytes: int
    """Peak memory of this rank over the moment before the head existed."""
    num_local_classes: int
    step_seconds: float
    """The last step."""
    losses: list[float]


def time_rounds(
    ranks: Ranks, variants: list[str], shape: Shape, rounds: int, *, is_rebuilt: bool = False
) -> dict[str, list[float]]:
    """Return the seconds of each step of each variant: one step of every variant in every round.

    All variants live in this process; references share the state of ``fused``. A step lasts until
    the last rank is done. One step of each warms up.

    Args:
        ranks: The ranks.
        variants: Their names.
        shape: The size of the task.
        rounds: How many.
        is_rebuilt: Whether a variant exists only while it is its turn, and warms up in every round:
            for tasks of which memory cannot hold several.
    """
    batch = Batch.drawn(shape, ranks)
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    contenders = {} if is_rebuilt else _together(variants, shape, ranks)
    for number in range(0 if contenders else 1, rounds + 1):
        for variant in variants:
            contender = contenders.get(variant)
            if contender is None:
                contender = make(variant, shape, ranks)
                _time(contender, batch, ranks)
            lasted = _time(contender, batch, ranks)
            if number:
                seconds[variant].append(lasted)
            name = f"round {number} of {rounds}" if number else "warm-up"
            _tell(ranks, f"{name}: {variant} {lasted:.3f} s")
            del contender
            if is_rebuilt:
                gc.collect()
    return seconds


def _together(variants: list[str], shape: Shape, ranks: Ranks) -> dict[str, Contender]:
    """Make all variants; references on the class centers of ``fused``, if it is there."""
    references = [variant for variant in variants if is_reference(variant)]
    contenders = {name: make(name, shape, ranks) for name in variants if name not in references}
    if references:
        fused = contenders.get("fused")
        centers = fused.centers() if isinstance(fused, Fused) else Centers.drawn(shape, ranks)
        for name in references:
            contenders[name] = make(name, shape, ranks, centers=centers)
    return contenders


def _time(contender: Contender, batch: Batch, ranks: Ranks) -> float:
    ranks.wait()
    begin = time.perf_counter()
    contender.step(batch)
    _finish(ranks)
    return time.perf_counter() - begin


def measure_peak(
    ranks: Ranks, variant: str, shape: Shape, steps: int = 2, budget_bytes: int = 0
) -> Peak:
    """Return what ``steps`` steps of one variant need in a process that does nothing else.

    A step with few classes comes first, so that code pages and thread pools, which are there once
    however many classes there are, do not count.

    Args:
        ranks: The ranks.
        variant: Its name.
        shape: The size of the task.
        steps: Number of steps.
        budget_bytes: End the process when its growth passes this. 0: never.
    """
    few = replace(shape, classes=_WARM_UP_CLASSES * ranks.world_size)
    make(variant, few, ranks).step(Batch.drawn(few, ranks))
    gc.collect()
    batch = Batch.drawn(shape, ranks)
    ranks.wait()
    peak = PeakGrowth(ranks.device)
    if budget_bytes:
        peak.limit(budget_bytes)
    contender = make(variant, shape, ranks)
    losses = []
    lasted = 0.0
    for _ in range(steps):
        begin = time.perf_counter()
        losses.append(contender.step(batch).item())
        _finish(ranks)
        lasted = time.perf_counter() - begin
    num_local = len(partition_classes(shape.classes, ranks.world_size, ranks.rank))
    return Peak(peak.measure(), num_local, lasted, losses)


def _finish(ranks: Ranks) -> None:
    """Return when every rank and its device is done."""
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)
    ranks.wait()


def _tell(ranks: Ranks, text: str) -> None:
    if ranks.is_first:
        print(text, file=sys.stderr, flush=True)
