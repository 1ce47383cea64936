"""What each experiment's glyph data set is made of."""

from dataclasses import dataclass

__all__ = ["RECIPES", "ROUGH", "SMOOTH", "Recipe", "Style"]


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


@dataclass(frozen=True)
class Recipe:
    """One data set."""

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
