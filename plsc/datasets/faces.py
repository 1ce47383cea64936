"""The font faces that draw the characters: those of matplotlib's wheel; nothing is downloaded."""

import functools
from dataclasses import dataclass
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import Image, ImageFont

__all__ = ["FACES", "Face", "ink"]

_EM_PIXELS = 128
"""Characters are rasterized at this size, well above what an image shows of them."""


@dataclass(frozen=True)
class Face:
    """One font file: a family in one weight and one posture."""

    name: str
    """The file's name without ``.ttf``."""
    family: str
    is_slanted: bool
    """Italic or oblique."""

    @functools.cached_property
    def path(self) -> Path:
        """Where matplotlib's installation holds the file."""
        import matplotlib as mpl  # noqa: PLC0415  its import costs a second

        return Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{self.name}.ttf"

    def characters(self) -> list[str]:
        """Return the characters that the face claims to draw, in code point order.

        Some of them are blank: see ``ink``.
        """
        with TTFont(self.path, lazy=True) as font:
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
    image = Image.frombytes("L", mask.size, bytes(mask))
    box = image.getbbox()
    return image.crop(box) if box else None


@functools.cache
def _font(face: Face) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(face.path, _EM_PIXELS, layout_engine=ImageFont.Layout.BASIC)
