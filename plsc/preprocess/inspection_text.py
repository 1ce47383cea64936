"""An inspection as text for a terminal, and as JSON for programs."""

import json
import re
from collections.abc import Iterator

from plsc.artifacts.shards import ShardSet
from plsc.preprocess.inspection import Inspection
from plsc.progress import duration

__all__ = ["to_json", "to_text"]

_BAR = 32
_MOST_BINS = 10
_MOST_PROBLEMS = 10
_EIGHTHS = " ▏▎▍▌▋▊▉"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_BOLD, _DIM, _RED, _GREEN = "1", "2", "31", "32"


def to_json(inspection: Inspection) -> str:
    """Return what was found as one JSON object."""
    dataset = inspection.dataset
    low, middle, high = _spread(dataset.images_per_class)
    document = {
        "uri": inspection.uri,
        "is_healthy": not inspection.problems,
        "is_deep": inspection.is_deep,
        "problems": [problem._asdict() for problem in inspection.problems],
        "num_temporary": inspection.num_temporary,
        "temporary_bytes": inspection.temporary_bytes,
        "size_bytes": sum(shard.size_bytes for shard in dataset.shards),
        "num_shards": len(dataset.shards),
        "images_per_class_spread": {"min": low, "median": middle, "max": high},
        **dataset.model_dump(mode="json", exclude={"shards": True, "provenance": {"config"}}),
    }
    return json.dumps(document, indent=1, ensure_ascii=False)


def to_text(inspection: Inspection, *, is_colored: bool) -> str:
    """Return what was found as lines to read.

    Args:
        inspection: What was found.
        is_colored: Whether the terminal shows colors (ANSI escapes).
    """

    def paint(text: str, style: str) -> str:
        return f"\033[{style}m{text}\033[0m" if is_colored else text

    dataset = inspection.dataset
    origin = dataset.provenance
    source = origin.config.get("data_uri", "?")
    made = f"from {source}, by run {origin.run_id}, {origin.created_at}"
    lines = [
        paint(f"Data set {_shown(origin.experiment)}", _BOLD) + f"  {dataset.uri}",
        paint(f"{_shown(made)}, in {duration(origin.seconds)}", _DIM),
        "",
        *(f"  {paint(f'{name:<11}', _DIM)} {_shown(text)}" for name, text in _facts(dataset)),
        "",
        paint("Images per class", _BOLD) + f"  {_spread_text(dataset)}",
        *(f"  {line}" for line in _histogram(dataset.images_per_class)),
        "",
    ]
    lines += _health(inspection, paint(_verdict(inspection), _color(inspection)))
    if inspection.num_temporary:
        lines.append(
            f"  besides, {inspection.num_temporary:,} temporary objects"
            f" ({_size(inspection.temporary_bytes)}) of a run that goes on or was broken off:"
            f" {dataset.uri.rpartition('/')[0]}/work"
        )
    return "\n".join(lines) + "\n"


def _shown(text: str) -> str:
    """Return ``text`` with its control characters spelled: an index may come from anywhere."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


def _facts(dataset: ShardSet) -> Iterator[tuple[str, str]]:
    """Yield what the index says, one thing a line."""
    empty = f" ({dataset.num_empty_classes:,} without images)" if dataset.num_empty_classes else ""
    yield "samples", f"{dataset.num_samples:,} of {dataset.num_classes:,} classes{empty}"
    pixels = f"{dataset.image_size} x {dataset.image_size} pixels"
    order = f", {dataset.column_order}" if dataset.column_order else ""
    yield "images", f"{pixels}, from {dataset.layout}{order}; order of seed {dataset.seed}"
    sizes = [shard.size_bytes for shard in dataset.shards] or [0]
    total = _size(sum(sizes))
    each = f"{_size(min(sizes))} to {_size(max(sizes))} each"
    yield "shards", f"{len(dataset.shards):,}, {total} in all, {each}"
    quarantine = dataset.quarantine
    if quarantine.num_rows:
        reasons = sorted(quarantine.reasons.items(), key=lambda item: -item[1])
        told = ", ".join(f"{reason} {count:,}" for reason, count in reasons)
        share = quarantine.num_rows / (quarantine.num_rows + dataset.num_samples)
        yield "bad rows", f"{quarantine.num_rows:,} ({share:.2%}): {told}"
        yield "", quarantine.uri
    else:
        yield "bad rows", "none"
    if dataset.num_blank_rows:
        yield "blank rows", f"{dataset.num_blank_rows:,}"
    twice = dataset.duplicates
    if twice.num_repeated or twice.num_conflicting:
        removed = f" ({twice.num_removed:,} left out)" if twice.num_removed else ""
        yield (
            "duplicates",
            f"{twice.num_repeated:,} rows repeat another{removed};"
            f" {twice.num_conflicting:,} images have several labels",
        )
    if dataset.left_out.num_classes:
        left = dataset.left_out
        yield "left out", f"{left.num_classes:,} small classes with {left.num_rows:,} rows"


def _spread(images_per_class: dict[int, int]) -> tuple[int, int, int]:
    """Return the least, median and most images of a class that has any."""
    filled = sorted((images, count) for images, count in images_per_class.items() if images)
    if not filled:
        return 0, 0, 0
    half, seen = sum(count for _, count in filled) / 2, 0
    for images, count in filled:
        seen += count
        if seen >= half:
            return filled[0][0], images, filled[-1][0]
    raise AssertionError("the last class is past the middle")


def _spread_text(dataset: ShardSet) -> str:
    low, middle, high = _spread(dataset.images_per_class)
    if low == high:
        return f"{low} in every class that has any"
    return f"{low} to {high:,}, median {middle:,}"


def _histogram(images_per_class: dict[int, int]) -> list[str]:
    """Return at most a dozen lines, each a range of images and how many classes lie in it."""
    bins: dict[tuple[int, int], int] = {}
    filled = {images: count for images, count in images_per_class.items() if images > 0}
    for first, last in _ranges(filled):
        bins[first, last] = sum(n for images, n in filled.items() if first <= images <= last)
    if images_per_class.get(0):
        bins = {(0, 0): images_per_class[0]} | bins
    names = [f"{a:,}" if a == b else f"{a:,}-{b:,}" for a, b in bins]
    width = max(map(len, names), default=0)
    most = max(bins.values(), default=1)
    return [
        f"{name:>{width}} {_bar(count / most):<{_BAR}} {count:,}"
        for name, count in zip(names, bins.values(), strict=True)
    ]


def _ranges(filled: dict[int, int]) -> list[tuple[int, int]]:
    """Return ranges that cover all numbers of images: equal, or growing if the tail is long."""
    if not filled:
        return []
    low, middle, high = _spread(filled)
    if high <= 8 * middle:
        step = -(-(high - low + 1) // _MOST_BINS)
        return [(first, min(first + step - 1, high)) for first in range(low, high + 1, step)]
    factor = 2
    while factor**_MOST_BINS <= high:
        factor *= 2
    firsts = [factor**power for power in range(_MOST_BINS + 1) if factor**power <= high]
    ranges = [(first, min(first * factor - 1, high)) for first in firsts]
    return [(first, last) for first, last in ranges if last >= low]


def _bar(share: float) -> str:
    eighths = max(1, round(share * _BAR * 8)) if share else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _verdict(inspection: Inspection) -> str:
    count = len(inspection.problems)
    if count:
        return "1 problem" if count == 1 else f"{count:,} problems"
    return "good"


def _color(inspection: Inspection) -> str:
    return _RED if inspection.problems else _GREEN


def _health(inspection: Inspection, verdict: str) -> Iterator[str]:
    """Yield the verdict and what to do about each problem; equal advice stands once."""
    looked = "every byte was read" if inspection.is_deep else "names and sizes; --deep reads all"
    yield f"Health: {verdict}  ({looked})"
    advised: dict[str, list[str]] = {}
    for problem in inspection.problems:
        advised.setdefault(problem.advice, []).append(_shown(f"{problem.uri}: {problem.found}"))
    for advice, found in advised.items():
        yield from (f"  ✗ {one}" for one in found[:_MOST_PROBLEMS])
        if len(found) > _MOST_PROBLEMS:
            yield f"  ✗ and {len(found) - _MOST_PROBLEMS:,} more like these (--json lists all)"
        yield f"    → {advice}"


def _size(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:,.1f} TiB"
