"""The data report: one self-contained HTML page that shows a person what the data set holds."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from string import Template

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from plsc import storage
from plsc.artifacts.shards import ShardSet
from plsc.conf.schema import PipelineConfig
from plsc.preprocess.quarantine import Entry
from plsc.preprocess.shuffle import Shuffled
from plsc.transforms import decode_resized

__all__ = ["NAME", "render", "uri_of"]

NAME = "data_report.html"
"""Lies beside the data set's index."""

_NUM_SAMPLES = 64
_THUMBNAIL_PIXELS = 96

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
    dataset: ShardSet, config: PipelineConfig, rows: Shuffled, examples: Sequence[Entry]
) -> str:
    """Return the report as HTML with everything inlined; the same data set gives the same text.

    Args:
        dataset: What was made.
        config: The configuration it was made with.
        rows: Its samples; the first ones, being shuffled, are shown as a random choice.
        examples: A few bad rows.
    """
    shown = range(min(_NUM_SAMPLES, len(rows)))
    images_per_class = np.unique(rows.labels, return_counts=True)[1]
    return _PAGE.substitute(
        title=html.escape(f"Data set of {config.name}"),
        origin=html.escape(
            f"from {config.data_uri}, columns {dataset.column_order}, {dataset.image_size} x"
            f" {dataset.image_size} pixels, shuffled with seed {config.seed}; shards in"
            f" {dataset.uri.rpartition('/')[0]}"
        ),
        facts=_facts(dataset),
        spread=_spread(images_per_class),
        histogram=_data_uri(_histogram(images_per_class), "image/svg+xml"),
        quarantine=_quarantine(dataset, examples),
        num_shown=len(shown),
        sheet="".join(_figures(rows.images(shown), rows.labels[: len(shown)].tolist(), config)),
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
    ]
    return "".join(f"<div{style}><b>{value}</b>{name}</div>" for value, name, style in facts)


def _alarm(count: int) -> str:
    return ' class="bad"' if count else ""


def _spread(images_per_class: npt.NDArray[np.int64]) -> str:
    low, high = images_per_class.min(), images_per_class.max()
    if low == high:
        return f"Every class with images has {low}."
    middle = np.median(images_per_class)
    return f"Classes with images have {low} to {high}; half of them {middle:.0f} or more."


def _histogram(images_per_class: npt.NDArray[np.int64]) -> bytes:
    """Return the histogram as SVG, without a date or random names in it."""
    with mpl.rc_context({"svg.hashsalt": "plsc", "font.size": 11}):
        figure = Figure(figsize=(6.4, 2.8), layout="constrained")
        axes = figure.add_subplot()
        low, high = int(images_per_class.min()), int(images_per_class.max())
        step = max(1, -(-(high - low + 1) // 60))
        edges = (np.arange(low, high + step + 1, step) - 0.5).tolist()
        axes.hist(images_per_class, edges, color="#2f6fab", rwidth=0.9)
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


def _figures(
    images: Sequence[bytes], labels: Sequence[int], config: PipelineConfig
) -> Iterable[str]:
    size = min(config.image_size, _THUMBNAIL_PIXELS)
    for image, label in zip(images, labels, strict=True):
        content = io.BytesIO()
        Image.fromarray(decode_resized(image, size)).save(content, "JPEG", quality=90)
        source = _data_uri(content.getvalue(), "image/jpeg")
        yield f'<figure><img alt="" src="{source}"><figcaption>{label}</figcaption></figure>'


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
