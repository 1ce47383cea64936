"""The font faces that draw the characters: by default those of matplotlib's wheel.

Nothing is downloaded. Faces of other files are found by ``plsc.datasets.fonts``.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import Image, ImageFont

__all__ = ["EM_PIXELS", "FACES", "Face", "ink"]

EM_PIXELS = 128
"""Characters are rasterized at this size, well above what an image shows of them."""


@dataclass(frozen=True)
class Face:
    """A family in one weight and one posture: one font file, or one face of a collection."""

    name: str
    """Tells it from every other face: the name of matplotlib's file without ``.ttf``, or the
    font's own name."""
    family: str
    is_slanted: bool
    """Italic or oblique."""
    file: str = ""
    """Path of the font file; empty: matplotlib's installation holds it."""
    number: int = 0
    """Which face of the file, if that is a collection."""

    @functools.cached_property
    def path(self) -> Path:
        """Where the file lies."""
        if self.file:
            return Path(self.file)
        import matplotlib as mpl  # noqa: PLC0415  its import costs a second

        return Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{self.name}.ttf"

    def characters(self) -> list[str]:
        """Return the characters that the face claims to draw, in code point order.

        Some of them are blank: see ``ink``.
        """
        with TTFont(self.path, lazy=True, fontNumber=self.number) as font:
            return [chr(code) for code in sorted(font.getBestCmap())]


FACES: tuple[Face, ...] = tuple(
    Face(family + style, family, is_slanted)
    for family, styles in {
        "DejaVuSans": {"": False, "-Bold": False, "-Oblique": True, "-BoldOblique": True},
        "DejaVuSansMono": {"": False, "-Bold": False, "-Oblique": True, "-BoldOblique": True},
        "DejaVuSerif": {"": False, "-Bold": False, "-Italic": True, "-BoldItalic": True},
        "STIXGeneral": {"": False, "Bol": False, "Italic": True, "BolIta": True},
    }.items()
    for style, is_slanted in styles.items()
)
"""The text faces. (``cm*``, ``STIXSiz*`` and ``STIXNonUni*`` map symbols to private codes.)"""


def ink(char: str, face: Face) -> Image.Image | None:
    """Return what ``face`` draws for ``char``, cropped to the ink, or None when it is blank.

    The image is 8-bit gray; 255 is ink.
    """
    mask = _font(face).getmask(char, mode="L")
    if not all(mask.size):
        return None
    image = Image.new("L", mask.size)
    image.im.paste(mask, (0, 0, *mask.size))  # bytes(mask) would take as long as all the rest
    box = image.getbbox()
    return image.crop(box) if box else None


@functools.cache
def _font(face: Face) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(
        face.path, EM_PIXELS, index=face.number, layout_engine=ImageFont.Layout.BASIC
    )
