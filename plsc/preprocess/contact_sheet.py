"""The contact sheet: a data set's samples, drawn at random, with their classes, as one PNG."""

import io
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from plsc.artifacts.shards import Shard, ShardReader, ShardSet, fetch_shard
from plsc.errors import ShardError, StorageError
from plsc.preprocess.deep_checks import classes_of
from plsc.transforms import NotAnImageError, decode_resized

__all__ = ["render", "size_of"]

_NUM_SHARDS = 8
_PIXELS = 96
_GAP = 10
_CAPTION = 18
_MARGIN = 20
_HEADER = 48
_INK, _QUIET, _PAPER, _EMPTY = "#1c2733", "#5b6b7b", "#ffffff", "#e3e9ef"
_FONT = Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


class _Sample(NamedTuple):
    image: bytes
    label: int


def size_of(num_samples: int, columns: int) -> tuple[int, int]:
    """Return width and height in pixels of a sheet."""
    rows = -(-num_samples // columns)
    width = 2 * _MARGIN + columns * (_PIXELS + _GAP) - _GAP
    return width, _HEADER + rows * (_PIXELS + _CAPTION + _GAP) + _MARGIN - _GAP


def render(dataset: ShardSet, *, columns: int = 10, rows: int = 10, seed: int = 0) -> bytes:
    """Return a sheet of ``columns`` x ``rows`` samples (fewer if there are fewer) as a PNG.

    They come from at most eight shards, which are fetched whole, one after the other; shards that
    cannot be read are passed over. The same arguments give the same samples.

    Args:
        dataset: Whose samples.
        columns: Pictures beside each other, >= 1.
        rows: Pictures below each other, >= 1.
        seed: Of the choice.

    Raises:
        ShardError: If none of the shards can be read.
    """
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="plsc-sheet-") as name:
        samples = _drawn(dataset.shards, columns * rows, rng, Path(name))
        captions = _captions(dataset, [sample.label for sample in samples], Path(name))
    sheet = Image.new("RGB", size_of(len(samples), columns), _PAPER)
    canvas = ImageDraw.Draw(sheet)
    _write_header(canvas, dataset, len(samples), seed, width=sheet.width)
    for place, (sample, caption) in enumerate(zip(samples, captions, strict=True)):
        left = _MARGIN + place % columns * (_PIXELS + _GAP)
        top = _HEADER + place // columns * (_PIXELS + _CAPTION + _GAP)
        _paste(sheet, canvas, sample.image, (left, top))
        center = (left + _PIXELS / 2, top + _PIXELS + 3)
        text = _cut(caption, _PIXELS, _font(11))
        canvas.text(center, text, fill=_QUIET, font=_font(11), anchor="ma")
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    return content.getvalue()


def _drawn(
    shards: Sequence[Shard], count: int, rng: np.random.Generator, folder: Path
) -> list[_Sample]:
    """Return about ``count`` samples, in random order, as evenly from the shards as they allow."""
    failures = []
    samples: list[_Sample] = []
    order = rng.permutation(len(shards)).tolist()
    wanted = min(len(shards), _NUM_SHARDS)
    for number in order:
        if not wanted:
            break
        try:
            path = fetch_shard(shards[number], folder)
            reader = ShardReader(path)
        except (ShardError, StorageError) as error:
            failures.append(str(error))
            continue
        share = -(-(count - len(samples)) // wanted)
        rows = rng.choice(len(reader), min(share, len(reader)), replace=False)
        samples += [_Sample(bytes(reader.image(row)), reader.label(row)) for row in rows.tolist()]
        path.unlink()
        wanted -= 1
    if not samples:
        raise ShardError(f"no shard can be read, so there is nothing to draw: {failures[0]}")
    return [samples[place] for place in rng.permutation(len(samples)).tolist()]


def _captions(dataset: ShardSet, labels: list[int], folder: Path) -> list[str]:
    """Return the class name of each label, or its number where names are missing or numbers."""
    try:
        table = classes_of(dataset, folder)
    except (ShardError, StorageError):
        return [str(label) for label in labels]
    known = table["label"].to_numpy()
    if not len(known):
        return [str(label) for label in labels]
    places = np.searchsorted(known, labels)
    names = table["name"].take(pa.array(np.minimum(places, len(known) - 1))).to_pylist()
    found = known[np.minimum(places, len(known) - 1)] == np.asarray(labels)
    return [
        _spelled(name) if is_known else str(label)
        for name, label, is_known in zip(names, labels, found.tolist(), strict=True)
    ]


def _spelled(name: str) -> str:
    """Return a name without the letters that the font lacks: their code points instead."""
    known = _letters()
    return " ".join(
        piece if all(ord(letter) in known for letter in piece) else _code_points(piece)
        for piece in name.split()
    )


def _code_points(text: str) -> str:
    return "+".join(f"U+{ord(letter):04X}" for letter in text)


def _write_header(
    canvas: ImageDraw.ImageDraw, dataset: ShardSet, count: int, seed: int, *, width: int
) -> None:
    title = f"{dataset.provenance.experiment}: {dataset.num_samples:,} samples"
    title += f" of {dataset.num_classes:,} classes"
    facts = f"{count} of them at random (seed {seed}): {dataset.uri}"
    space = width - 2 * _MARGIN
    for top, text, size, color in ((8, title, 14, _INK), (28, facts, 10, _QUIET)):
        shown = _cut(_spelled(text), space, _font(size))
        canvas.text((_MARGIN, top), shown, fill=color, font=_font(size))


def _paste(
    sheet: Image.Image, canvas: ImageDraw.ImageDraw, content: bytes, corner: tuple[int, int]
) -> None:
    left, top = corner
    try:
        sheet.paste(Image.fromarray(decode_resized(content, _PIXELS)), corner)
    except NotAnImageError:
        canvas.rectangle((left, top, left + _PIXELS - 1, top + _PIXELS - 1), fill=_EMPTY)
        middle = (left + _PIXELS / 2, top + _PIXELS / 2)
        canvas.text(middle, "damaged", fill=_QUIET, font=_font(10), anchor="mm")


def _cut(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """Return ``text``, or as much of it as fits into ``width`` pixels with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_FONT), size)


@cache
def _letters() -> frozenset[int]:
    """Return the code points that the font has (Latin, Greek, Cyrillic, Arabic and more)."""
    return frozenset(FT2Font(str(_FONT)).get_charmap())
