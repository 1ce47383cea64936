"""Font files for tests: parts of matplotlib's own, and small ones drawn here."""

from pathlib import Path

import numpy as np
from fontTools import subset
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

from plsc.datasets.faces import FACES

LETTERS = "".join(map(chr, [*range(0x41, 0x5B), *range(0x61, 0x7B), *range(0x410, 0x450)]))
IDEOGRAPHS = "".join(map(chr, range(0x4E00, 0x4E20)))
BUNDLED = ("DejaVuSans", "DejaVuSerif", "DejaVuSans-Oblique", "STIXGeneral")


def cut_bundled(folder: Path, names=BUNDLED, chars=LETTERS) -> Path:
    """Write the ``chars`` of matplotlib's faces ``names`` below ``folder``, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for face in FACES:
        if face.name in names:
            options = subset.Options(notdef_outline=True, name_IDs=["*"])
            with subset.load_font(face.path, options) as font:
                subsetter = subset.Subsetter(options)
                subsetter.populate(text=chars)
                subsetter.subset(font)
                subset.save_font(font, folder / f"{face.name}.ttf", options)
    return folder


def rectangles(char, *design):
    """Return a character's drawing in a design: a few rectangles in the em square, a bit apart."""
    random = np.random.default_rng(sum(map(ord, char)))
    corners = random.integers(0, 800, (6, 2))
    sizes = random.integers(60, 300, (6, 2))
    jitter = np.random.default_rng([ord(char[0]), *map(ord, "".join(design))])
    if design:
        corners = corners + jitter.integers(-60, 60, (6, 2))
    return [(*corner, *(corner + size)) for corner, size in zip(corners, sizes, strict=True)]


def write_font(path: Path, drawings, *, family="Made", slanted=False) -> Path:
    """Write a TrueType font: character -> rectangles (x0, y0, x1, y1); none: a blank glyph."""
    names = {char: f"u{ord(char):X}" for char in drawings}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap({ord(char): name for char, name in names.items()})
    glyphs = {names[char]: _outline(boxes) for char, boxes in drawings.items()}
    builder.setupGlyf({".notdef": _outline([(0, 0, 500, 700), (600, 0, 700, 90)]), **glyphs})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", *glyphs), (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": family, "styleName": "Regular", "psName": family})
    builder.setupOS2(fsSelection=1 if slanted else 64)
    builder.setupPost(italicAngle=-12 if slanted else 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)
    return path


def _outline(boxes):
    pen = TTGlyphPen(None)
    for x0, y0, x1, y1 in boxes:
        pen.moveTo((int(x0), int(y0)))
        for point in ((x0, y1), (x1, y1), (x1, y0)):
            pen.lineTo((int(point[0]), int(point[1])))
        pen.closePath()
    return pen.glyph()


def without_outlines(path: Path) -> Path:
    """Take a font's outlines away, as in a file of bitmaps alone."""
    with TTFont(path, lazy=False) as font:
        for table in ("glyf", "loca"):
            del font[table]
        font.save(path)
    return path


def without_names(path: Path) -> Path:
    """Take a font's names away, so that its file's name is all there is."""
    with TTFont(path, lazy=False) as font:
        font["name"].names = []
        font.save(path)
    return path
