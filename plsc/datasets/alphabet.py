"""Which characters are classes: those that several faces draw and that cannot be confused.

A picture shows a character at a standard size, so a class is a *shape*: of characters whose shapes
look alike (A, Greek Alpha, Cyrillic A; c, C, superscript c) only the one with the lowest code point
stays.
"""

import collections
import logging
import unicodedata
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from plsc.datasets.chance import rank
from plsc.datasets.faces import FACES, Face, ink

__all__ = [
    "SAME_DRAWING",
    "Alphabet",
    "Shape",
    "choose_alphabet",
    "difference",
    "has_its_own_shape",
    "says_something",
    "shape_of",
]

log = logging.getLogger(__name__)

Shape = npt.NDArray[np.uint8]
"""What a drawing looks like from afar: [32, 32], fitted to the square and blurred."""

_SIDE, _FITTED = 32, 26
_MIN_DRAWINGS = 3
_LOOK_ALIKE = 100
"""Shapes that differ less in every place are taken for one another (set by eye)."""
_CORRELATED = 0.9
"""Only shapes that correlate so well are compared place by place."""
SAME_DRAWING = 20
"""Likewise for one character's drawings in two faces: they are copies."""
_STRANGE = 0.7
"""A drawing that correlates less with the others of its character (median) shows something else."""
_FULL, _LONG = 0.8, 3.5
"""Blocks, dots and dashes, which fill their box or are so many times longer than wide, look alike
at a standard size."""


@dataclass(frozen=True)
class Alphabet:
    """The classes, in code point order, and for each the shapes of its drawings by face."""

    shapes: dict[str, dict[Face, Shape]]

    def fit_for_pairs(self) -> list[str]:
        """Return the characters drawn in two families, upright and slanted: fit for any pair."""
        return [
            char
            for char, faces in self.shapes.items()
            if len({face.family for face in faces}) > 1
            and len({face.is_slanted for face in faces}) > 1
        ]

    def look_alike(self, first: tuple[str, Face], second: tuple[str, Face]) -> bool:
        """Return whether two drawings could be taken for the same character."""
        return (
            difference(self.shapes[first[0]][first[1]], self.shapes[second[0]][second[1]])
            < _LOOK_ALIKE
        )


def difference(first: Shape, second: Shape) -> int:
    """Return the largest difference between two shapes in any place, 0..255."""
    return int(np.abs(first.astype(np.int16) - second.astype(np.int16)).max())


def choose_alphabet(pool: Executor, *, max_candidates: int, seed: int) -> Alphabet:
    """Return the characters with three different drawings or more, less the look-alikes.

    Args:
        pool: Draws one face per task.
        max_candidates: Look at no more characters than this, chosen by ``seed``.
        seed: Only matters when there are more candidates.
    """
    candidates = _candidates()
    candidates = sorted(
        sorted(candidates, key=lambda char: rank(seed, "candidate", char))[:max_candidates]
    )
    drawn: dict[str, dict[Face, Shape]] = {char: {} for char in candidates}
    for face, shapes in zip(
        FACES, pool.map(_shapes_of, FACES, [candidates] * len(FACES)), strict=True
    ):
        for char, shape in shapes.items():
            if all(difference(shape, other) >= SAME_DRAWING for other in drawn[char].values()):
                drawn[char][face] = shape
    usual = {char: _without_strangers(shapes) for char, shapes in drawn.items()}
    shared = {char: shapes for char, shapes in usual.items() if len(shapes) >= _MIN_DRAWINGS}
    kept = _without_look_alikes(shared)
    log.info(
        "alphabet: of %d characters %d have enough drawings, and %d of them their own shape",
        len(candidates), len(shared), len(kept),
    )  # fmt: skip
    return Alphabet({char: shared[char] for char in kept})


def _candidates() -> list[str]:
    num_faces = collections.Counter(char for face in FACES for char in face.characters())
    return [
        char
        for char, faces in num_faces.items()
        if faces >= _MIN_DRAWINGS and has_its_own_shape(char)
    ]


def has_its_own_shape(char: str) -> bool:
    """Return False for marks, parts of boxes, and variants of others in size or place."""
    return (
        unicodedata.category(char)[0] in "LNSP"
        and unicodedata.normalize("NFC", char) == char
        and not unicodedata.decomposition(char).startswith(("<super>", "<sub>"))
        and "SMALL CAPITAL" not in unicodedata.name(char, "")
        and not 0x2500 <= ord(char) < 0x25A0
    )


def _shapes_of(face: Face, candidates: list[str]) -> dict[str, Shape]:
    """Return the shapes of the candidates that the face draws, bars left out (a pool's task)."""
    supported = set(face.characters())
    shapes = {}
    for char in candidates:
        drawing = ink(char, face) if char in supported else None
        if drawing is not None and says_something(drawing):
            shapes[char] = shape_of(drawing)
    return shapes


def says_something(drawing: Image.Image) -> bool:
    """Return False for blocks, dots, dashes and bars."""
    is_long = max(drawing.size) > _LONG * min(drawing.size)
    return not is_long and bool(np.asarray(drawing).mean() < _FULL * 255)


def shape_of(drawing: Image.Image) -> Shape:
    """Return what a drawing, cropped to its ink, looks like from afar: uint8 [32, 32]."""
    scale = _FITTED / max(drawing.size)
    size = (max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale)))
    small = drawing.resize(size, Image.Resampling.BOX)
    square = Image.new("L", (_SIDE, _SIDE))
    square.paste(small, ((_SIDE - small.width) // 2, (_SIDE - small.height) // 2))
    return np.asarray(square.filter(ImageFilter.GaussianBlur(1)))


def _without_strangers(shapes: dict[Face, Shape]) -> dict[Face, Shape]:
    """Leave out drawings that resemble most others of their character too little to be it."""
    if not shapes:
        return {}
    unit = _unit(np.stack(list(shapes.values())))
    resemblance = np.median(unit @ unit.T, axis=1)
    return {
        face: shape
        for (face, shape), like in zip(shapes.items(), resemblance.tolist(), strict=True)
        if like >= _STRANGE
    }


def _without_look_alikes(drawn: dict[str, dict[Face, Shape]]) -> list[str]:
    """Return the characters that look like no earlier one kept; two faces decide."""
    votes: collections.Counter[tuple[str, str]] = collections.Counter()
    for face in FACES:
        chars = sorted(char for char, shapes in drawn.items() if face in shapes)
        votes.update(
            _look_alikes(chars, np.stack([drawn[char][face] for char in chars])) if chars else []
        )
    rivals: dict[str, list[str]] = collections.defaultdict(list)
    for (earlier, later), faces in votes.items():
        if faces >= 2:
            rivals[later].append(earlier)
    kept: set[str] = set()
    for char in sorted(drawn):
        if kept.isdisjoint(rivals[char]):
            kept.add(char)
    return sorted(kept)


def _look_alikes(chars: list[str], shapes: Shape) -> list[tuple[str, str]]:
    """Return one face's pairs that look alike; only correlated ones are compared in detail."""
    flat, unit = shapes.reshape(len(chars), -1).astype(np.int16), _unit(shapes)
    firsts, seconds = np.nonzero(np.triu(unit @ unit.T > _CORRELATED, 1))
    return [
        (chars[first], chars[second])
        for first, second in zip(firsts.tolist(), seconds.tolist(), strict=True)
        if np.abs(flat[first] - flat[second]).max() < _LOOK_ALIKE
    ]


def _unit(shapes: Shape) -> npt.NDArray[np.float32]:
    """Return shapes [n, 32, 32] as rows of length 1: their products are correlations."""
    flat = shapes.reshape(len(shapes), -1).astype(np.float32)
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))
