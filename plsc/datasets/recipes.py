"""What each experiment's glyph data set is made of."""

from dataclasses import dataclass

from plsc.errors import ConfigError

__all__ = ["LARGE", "RECIPES", "ROUGH", "ROUGH_EVERY", "SMOOTH", "LargeRecipe", "Recipe", "Style"]


@dataclass(frozen=True)
class Style:
    """How far a picture of a character may stray from the plain drawing."""

    rotation_deg: float
    """Largest rotation either way."""
    shear: float
    """Largest horizontal shear either way, as a tangent."""
    zoom: float
    """Largest relative change of size either way."""
    shift: float
    """Largest shift either way, as a fraction of the image."""
    blur: float
    """Largest Gaussian radius, as a fraction of the image."""
    noise: float
    """Largest standard deviation of the noise, in gray levels."""
    contrast: float
    """Smallest difference of luma between ink and paper, in gray levels."""
    inverted: float
    """Share of pictures with light ink on dark paper, 0..1."""


SMOOTH = Style(
    rotation_deg=7,
    shear=0.05,
    zoom=0.08,
    shift=0.03,
    blur=0.01,
    noise=7,
    contrast=110,
    inverted=0.2,
)
"""Most training pictures, and those of two benchmarks."""

ROUGH = Style(
    rotation_deg=11,
    shear=0.1,
    zoom=0.12,
    shift=0.05,
    blur=0.016,
    noise=14,
    contrast=90,
    inverted=0.4,
)
"""The other training pictures, and those of the third benchmark: hard, still legible."""


ROUGH_EVERY = 3
"""Of so many training pictures the last is rough."""


@dataclass(frozen=True)
class Recipe:
    """One data set of matplotlib's faces."""

    image_size: int
    """Height and width of every image, in pixels."""
    max_candidates: int
    """Characters to look at when choosing the alphabet."""
    max_classes: int
    """Characters to train on, unless the alphabet leaves fewer beside those held out."""
    num_held_out: int
    """Characters that only the benchmarks show."""
    images_per_class: int
    """Training pictures per character, dealt over its faces; every third one is rough."""
    num_pairs: int
    """Pairs per benchmark, half of them of one character."""
    folds: int
    """Blocks of pairs, in each the same pairs before the different ones."""
    num_parts: int
    """Part files."""


RECIPES = {
    "glyphs": Recipe(
        image_size=64,
        max_candidates=10_000,
        max_classes=10_000,
        num_held_out=400,
        images_per_class=10,
        num_pairs=3000,
        folds=10,
        num_parts=8,
    ),
    "tiny": Recipe(
        image_size=32,
        max_candidates=120,
        max_classes=40,
        num_held_out=40,
        images_per_class=12,
        num_pairs=240,
        folds=5,
        num_parts=2,
    ),
}
"""Experiment -> its data set."""


@dataclass(frozen=True)
class LargeRecipe:
    """A data set of a folder of fonts; each field but the last two is an option of the command."""

    min_faces: int = 2
    """Characters drawn by fewer faces are left out."""
    max_classes: int = 10_000_000
    """Characters to train on, chosen by the seed where there are more."""
    num_held_out: int = 2000
    """Characters that only the benchmarks show; two families must draw each. 0: no benchmarks."""
    images_per_face: int = 5
    """Training pictures of a character per face that draws it; every third one is rough."""
    images_per_class: int = 0
    """Training pictures per character, dealt over its faces; 0: so many per face instead."""
    image_size: int = 112
    """Height and width of every image, in pixels."""
    num_parts: int = 0
    """Part files; 0: as many as keep each at about 64 MiB or less."""
    num_pairs: int = 6000
    """Pairs per benchmark, half of them of one character."""
    folds: int = 10
    """Blocks of pairs, in each the same pairs before the different ones."""

    def __post_init__(self) -> None:
        smallest = {
            "min_faces": 1, "max_classes": 2, "num_held_out": 0, "images_per_face": 1,
            "images_per_class": 0, "image_size": 16, "num_parts": 0, "num_pairs": 2 * self.folds,
        }  # fmt: skip
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, expected {least} or more: correct --"
                    f"{name.removeprefix('num_').replace('_', '-')}"
                )


LARGE = LargeRecipe()
"""The recipe ``large``."""
