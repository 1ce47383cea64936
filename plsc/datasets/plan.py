"""What a data set of a folder of fonts consists of: classes, faces, counts, and how it is cut."""

import hashlib
import json
import logging
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import features

from plsc.datasets import fonts as font_files
from plsc.datasets.alphabet import Alphabet
from plsc.datasets.chance import rank
from plsc.datasets.faces import Face
from plsc.datasets.recipes import LargeRecipe
from plsc.datasets.repertoire import Repertoire, choose_repertoire
from plsc.datasets.survey import Surveyed, survey
from plsc.errors import ConfigError
from plsc.processors import usable_processors

__all__ = ["Plan", "PlannedClass", "cut_into_parts", "make_plan"]

log = logging.getLogger("plsc.datasets.glyphs")

_PART_BYTES = 64 * 1024**2
_FEWEST_PARTS = 16
"""So that as many processes have something to do, if there are so many classes."""


@dataclass(frozen=True)
class PlannedClass:
    """What there is to paint of one class."""

    label: int
    char: str
    faces: tuple[Face, ...]
    num_images: int


@dataclass(frozen=True)
class Plan:
    """What is painted."""

    recipe: LargeRecipe
    seed: int
    classes: list[PlannedClass]
    held_out: Alphabet
    digest: str
    """Of all that the bytes depend on."""


def make_plan(
    pool: Executor,
    fonts: Path,
    recipe: LargeRecipe,
    seed: int,
    work: Path,
    *,
    processes: int | None,
) -> tuple[Plan, dict[str, object]]:
    """Return what to paint, and a document that tells what became of every font.

    Args:
        pool: Compares drawings.
        fonts: Folder of font files.
        recipe: What to make of them.
        seed: Decides which characters are held out.
        work: Empty folder for what the survey finds.
        processes: Files to survey at a time, while the pool is idle (default: one per processor).

    Raises:
        ConfigError: If the fonts yield too few characters.
    """
    files = font_files.find_files(fonts)
    surveyed, skipped = survey(files, work, processes=processes or usable_processors())
    if not surveyed:
        raise ConfigError(f"--fonts {fonts}: none of {len(files)} font files can be used")
    repertoire = choose_repertoire(pool, surveyed, min_faces=recipe.min_faces)
    classes, held_out = _split(repertoire, recipe, seed, fonts)
    log.info(
        "plan: %d classes and %d held-out characters, %d pictures by %d faces of %d files",
        len(classes), len(held_out), sum(each.num_images for each in classes),
        len({face.name for each in classes for face in each.faces}), len(files),
    )  # fmt: skip
    drawn = [(each.label, each.char, [face.name for face in each.faces]) for each in classes]
    depends = [_versions(), asdict(recipe), seed, sorted(files), drawn, held_out]
    digest = hashlib.sha256(json.dumps(depends).encode()).hexdigest()
    plan = Plan(recipe, seed, classes, repertoire.alphabet(held_out), digest)
    return plan, _document(repertoire.surveyed, skipped, plan)


def _versions() -> list[str | None]:
    """Return the versions of all that decides a pixel or a category."""
    libraries = [features.version(name) for name in ("freetype2", "jpg", "libjpeg_turbo")]
    return [PIL.__version__, np.__version__, sys.version, unicodedata.unidata_version, *libraries]


def _document(
    surveyed: list[Surveyed], skipped: dict[str, list[str]], plan: Plan
) -> dict[str, object]:
    shown: dict[str, int] = {}
    for each in plan.classes:
        for face in each.faces:
            shown[face.name] = shown.get(face.name, 0) + 1
    faces = [
        {
            "name": entry.face.name,
            "file": font_files.shown(entry.face.path.name),
            "family": entry.face.family,
            "is_slanted": entry.face.is_slanted,
            "classes": shown.get(entry.face.name, 0),
            "drawn": len(entry.codes),
            **entry.counts,
        }
        for entry in surveyed
    ]
    return {
        "recipe": asdict(plan.recipe),
        "seed": plan.seed,
        "faces": faces,
        "skipped": sorted(skipped),
    }


def _split(
    repertoire: Repertoire, recipe: LargeRecipe, seed: int, fonts: Path
) -> tuple[list[PlannedClass], list[str]]:
    """Return the classes, and the characters held out, both in code point order."""
    drawn = repertoire.characters()

    def shuffled(chars: Iterable[str]) -> list[str]:
        return sorted(chars, key=lambda char: rank(seed, "split", char))

    fit = [char for char, faces in drawn.items() if len({face.family for face in faces}) > 1]
    held_out = set(shuffled(fit)[: recipe.num_held_out])
    chosen = sorted(shuffled(drawn.keys() - held_out)[: recipe.max_classes])
    if len(chosen) < 2:
        raise ConfigError(
            f"--fonts {fonts}: expected at least 2 classes beside the {len(held_out)} characters"
            f" held out, found {len(chosen)}: only {len(drawn)} characters are drawn by"
            f" {recipe.min_faces} faces; add fonts, or lower --min-faces or --held-out"
        )
    classes = [
        PlannedClass(
            label, char, drawn[char],
            recipe.images_per_class or recipe.images_per_face * len(drawn[char]),
        )
        for label, char in enumerate(chosen)
    ]  # fmt: skip
    return classes, sorted(held_out)


def cut_into_parts(plan: Plan) -> Iterator[list[PlannedClass]]:
    """Yield the classes of each part: runs of about as many pictures."""
    counts = np.cumsum([each.num_images for each in plan.classes])
    # Mostly generous: of 112 x 112 pixels 5.5 KB as base64 are usual, and here 9.
    image_bytes = 1000 + 0.65 * plan.recipe.image_size**2
    num_parts = plan.recipe.num_parts or max(
        _FEWEST_PARTS, -(-counts[-1] * image_bytes // _PART_BYTES)
    )
    ends = np.searchsorted(counts, counts[-1] * np.arange(1, num_parts + 1) / num_parts, "left") + 1
    start = 0
    for end in ends.tolist():
        if end > start:
            yield plan.classes[start:end]
            start = end
