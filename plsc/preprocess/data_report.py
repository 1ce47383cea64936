"""The data report: one self-contained HTML page that shows a person what the data set holds."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from plsc import storage
from plsc.artifacts.shards import ShardReader, ShardSet, fetch_shard
from plsc.conf.schema import PipelineConfig
from plsc.preprocess.quarantine import Entry
from plsc.transforms import NotAnImageError, decode_resized

__all__ = ["NAME", "render", "uri_of"]

NAME = "data_report.html"
"""Lies beside the data set's index."""

_NUM_SAMPLES = 64
_THUMBNAIL_PIXELS = 96
_DAMAGED = (253, 240, 231)

_PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 14px/1.45 system-ui, sans-serif; color: #1c2733; background: #fff;
       margin: 0 auto; padding: 16px; max-width: 1080px }
h1 { font-size: 19px; margin: 0 } h2 { font-size: 15px; margin: 24px 0 8px }
.quiet { color: #5b6b7b; font-size: 12px; overflow-wrap: anywhere }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(100px, 1fr)); gap: 8px;
         margin: 14px 0 }
.facts div { background: #f2f6fa; border-radius: 8px; padding: 8px 10px }
.facts b { display: block; font-size: 19px; font-variant-numeric: tabular-nums }
.bad { background: #fdf0e7 !important }
table { border-collapse: collapse; width: 100%; font-size: 12px; table-layout: fixed }
th, td { text-align: left; vertical-align: top; padding: 4px 8px 4px 0; overflow-wrap: anywhere;
         border-bottom: 1px solid #e3e9ef }
.narrow { width: 5.5em } code { font-size: 11px }
.plot { width: 100%; max-width: 720px }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(48px, 1fr)); gap: 6px }
figure { margin: 0; text-align: center } figure img { width: 100%; border-radius: 4px }
figcaption { font-size: 10px; color: #5b6b7b; overflow: hidden; text-overflow: ellipsis }
</style>
<h1>$title</h1>
<div class="quiet">$origin</div>
<div class="facts">$facts</div>
<h2>Images per class</h2>
<div class="quiet">$spread</div>
<img class="plot" alt="Histogram of images per class" src="$histogram">
<h2>$num_shown samples at random</h2>
<div class="quiet">Under each image, its label.</div>
<div class="sheet">$sheet</div>
<h2>Bad rows</h2>
$quarantine
</html>
""")


def uri_of(dataset: ShardSet) -> str:
    """Return where the report of ``dataset`` lies."""
    return storage.join(dataset.uri.rpartition("/")[0], NAME)


def render(
    dataset: ShardSet, config: PipelineConfig, examples: Sequence[Entry], scratch: Path
) -> str:
    """Return the report as HTML with everything inlined; the same data set gives the same text.

    Args:
        dataset: What was made. The first samples, being shuffled, are shown as a random choice.
        config: The configuration it was made with.
        examples: A few bad rows.
        scratch: Local folder with room for a shard.

    Raises:
        StorageError: If a shard cannot be fetched.
        ShardError: If it is not what was written.
    """
    shown = _first_samples(dataset, scratch)
    histogram = {n: count for n, count in dataset.images_per_class.items() if n}
    return _PAGE.substitute(
        title=html.escape(f"Data set of {config.name}"),
        origin=html.escape(
            f"from {config.data_uri} ({_layout(dataset)}), {dataset.image_size} x"
            f" {dataset.image_size} pixels, shuffled with seed {config.seed}; shards in"
            f" {dataset.uri.rpartition('/')[0]}"
        ),
        facts=_facts(dataset),
        spread=_spread(histogram),
        histogram=_data_uri(_histogram(histogram), "image/svg+xml"),
        quarantine=_quarantine(dataset, examples),
        num_shown=len(shown),
        sheet="".join(_figures(shown, config)),
    )


def _facts(dataset: ShardSet) -> str:
    size_mib = sum(shard.size_bytes for shard in dataset.shards) / 2**20
    quarantined = dataset.quarantine.num_rows
    facts = [
        (f"{dataset.num_samples:,}", "samples", ""),
        (f"{dataset.num_classes:,}", "classes", ""),
        (f"{dataset.num_empty_classes:,}", "of them empty", _alarm(dataset.num_empty_classes)),
        (f"{len(dataset.shards):,}", f"shards, {size_mib:,.1f} MiB", ""),
        (f"{quarantined:,}", "bad rows", _alarm(quarantined)),
        (f"{dataset.num_blank_rows:,}", "blank rows", ""),
        (f"{dataset.duplicates.num_repeated:,}", _repeated(dataset), ""),
        (
            f"{dataset.duplicates.num_conflicting:,}",
            "images under several labels",
            _alarm(dataset.duplicates.num_conflicting),
        ),
    ]
    if dataset.left_out.num_classes:
        facts.append((f"{dataset.left_out.num_classes:,}", "classes left out (too few images)", ""))
    return "".join(f"<div{style}><b>{value}</b>{name}</div>" for value, name, style in facts)


def _repeated(dataset: ShardSet) -> str:
    return "repeated samples, " + ("removed" if dataset.duplicates.num_removed else "kept")


def _alarm(count: int) -> str:
    return ' class="bad"' if count else ""


def _first_samples(dataset: ShardSet, scratch: Path) -> list[tuple[bytes, int]]:
    samples: list[tuple[bytes, int]] = []
    for shard in dataset.shards:
        reader = ShardReader(fetch_shard(shard, scratch))
        rows = range(min(_NUM_SAMPLES - len(samples), len(reader)))
        samples += [(bytes(reader.image(row)), reader.label(row)) for row in rows]
        if len(samples) == _NUM_SAMPLES:
            break
    return samples


def _layout(dataset: ShardSet) -> str:
    columns = f", columns {dataset.column_order}" if dataset.column_order else ""
    return dataset.layout.replace("_", " ") + columns


def _spread(histogram: dict[int, int]) -> str:
    low, high = min(histogram), max(histogram)
    if low == high:
        return f"Every class with images has {low}."
    half, seen = sum(histogram.values()) / 2, 0
    for middle, count in sorted(histogram.items()):  # noqa: B007  it is used after the loop
        seen += count
        if seen >= half:
            break
    return f"Classes with images have {low} to {high}; half of them {middle} or more."


def _histogram(histogram: dict[int, int]) -> bytes:
    """Return the histogram as SVG, without a date or random names in it."""
    with mpl.rc_context({"svg.hashsalt": "plsc", "font.size": 11}):
        figure = Figure(figsize=(6.4, 2.8), layout="constrained")
        axes = figure.add_subplot()
        low, high = min(histogram), max(histogram)
        step = max(1, -(-(high - low + 1) // 60))
        edges = (np.arange(low, high + step + 1, step) - 0.5).tolist()
        images, weights = list(histogram), list(histogram.values())
        axes.hist(images, edges, weights=weights, color="#2f6fab", rwidth=0.9)
        axes.set_xlim(min(low - 1, high - 9), max(high + 1, low + 9))
        axes.set_xlabel("images of a class")
        axes.set_ylabel("classes")
        axes.locator_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _quarantine(dataset: ShardSet, examples: Sequence[Entry]) -> str:
    found = dataset.quarantine
    if not found.num_rows:
        return '<div class="quiet">None.</div>'
    reasons = _table(
        ["reason", "rows"], ([reason, f"{count:,}"] for reason, count in found.reasons.items())
    )
    few = _table(
        ["part", "line", "what is wrong", "begins with"],
        (
            [entry.uri.rpartition("/")[2], str(entry.line), entry.detail, entry.row[:60]]
            for entry in examples
        ),
    )
    return f'{reasons}<p class="quiet">All of them: {html.escape(found.uri)}; the first:</p>{few}'


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(
        f"<th{' class=narrow' if name in ('line', 'rows') else ''}>{name}</th>" for name in names
    )
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _figures(samples: Iterable[tuple[bytes, int]], config: PipelineConfig) -> Iterable[str]:
    size = min(config.image_size, _THUMBNAIL_PIXELS)
    for image, label in samples:
        content = io.BytesIO()
        try:
            pixels = decode_resized(image, size)
        except NotAnImageError:  # damage that its header does not show
            pixels = np.full((size, size, 3), _DAMAGED, np.uint8)
        Image.fromarray(pixels).save(content, "JPEG", quality=90)
        source = _data_uri(content.getvalue(), "image/jpeg")
        yield f'<figure><img alt="" src="{source}"><figcaption>{label}</figcaption></figure>'


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
