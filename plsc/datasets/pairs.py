"""The pairs of a benchmark: one character twice, or two of one script; style tells nothing."""

import collections
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from plsc.datasets.alphabet import Alphabet
from plsc.datasets.chance import generator
from plsc.datasets.faces import Face
from plsc.datasets.recipes import ROUGH, SMOOTH, Style
from plsc.errors import ConfigError

__all__ = ["BENCHMARKS", "Kind", "Pair", "choose_pairs", "script_of"]


@dataclass(frozen=True)
class Kind:
    """What is hard about a benchmark."""

    fits: Callable[[Face, Face], bool]
    """Which two faces form a pair."""
    style: Style
    """How its pictures are painted."""


BENCHMARKS = {
    "glyph_cross": Kind(lambda first, second: first.family != second.family, SMOOTH),
    "glyph_slant": Kind(lambda first, second: not first.is_slanted and second.is_slanted, SMOOTH),
    "glyph_rough": Kind(lambda first, second: first != second, ROUGH),
}
"""Two designs (as in LFW), upright against slanted (CFP-FP: pose), rough pictures (AgeDB-30)."""


@dataclass(frozen=True)
class Pair:
    """Two drawings to tell same from different."""

    chars: tuple[str, str]
    faces: tuple[Face, Face]

    @property
    def is_same(self) -> bool:
        """Whether both show one character."""
        return self.chars[0] == self.chars[1]


def choose_pairs(
    alphabet: Alphabet, chars: list[str], *, name: str, num_pairs: int, folds: int, seed: int
) -> list[Pair]:
    """Return the pairs of the benchmark ``name`` among ``chars``, fold by fold, same pairs first.

    Each different pair is the twin of a same pair: it has the same faces and first character, only
    the second character is another of that script, one that does not look alike. So no style and
    no script is more frequent among the same pairs than among the different ones.

    Raises:
        ConfigError: If no character has a twin of that kind.
    """
    random = generator(seed, name)
    neighbors = _by_script(chars)
    same: list[Pair] = []
    different: list[Pair] = []
    while len(same) < num_pairs // 2:
        so_far = len(same)
        for char in random.permutation(chars).tolist():
            faces = _choose_faces(alphabet, char, BENCHMARKS[name], random)
            other = _choose_other(alphabet, char, faces, neighbors[char], random)
            if other is not None:
                same.append(Pair((char, char), faces))
                different.append(Pair((char, other), faces))
        if len(same) == so_far:
            raise ConfigError(
                f"benchmark {name}: none of {len(chars)} characters held out has another of its"
                " script in the same face that looks different: hold out more, or none (0)"
            )
    block = num_pairs // 2 // folds
    blocks = [slice(fold * block, (fold + 1) * block) for fold in range(folds)]
    return [pair for block in blocks for pair in (*same[block], *different[block])]


def _by_script(chars: list[str]) -> dict[str, list[str]]:
    """Return for each character those of its script (of all small ones, if it is one)."""
    sizes = collections.Counter(script_of(char) for char in chars)
    groups: dict[str, list[str]] = collections.defaultdict(list)
    group_of = {}
    for char in chars:
        script = script_of(char)
        group_of[char] = script if sizes[script] >= 10 else f"letter: {char.isalpha()}"
        groups[group_of[char]].append(char)
    return {char: groups[group_of[char]] for char in chars}


def script_of(char: str) -> str:
    """Return the first word of the character's name: LATIN, CYRILLIC, ARMENIAN, BRAILLE, ..."""
    return unicodedata.name(char, "NAMELESS").split()[0]


def _choose_faces(
    alphabet: Alphabet, char: str, kind: Kind, random: np.random.Generator
) -> tuple[Face, Face]:
    faces = list(alphabet.shapes[char])
    fitting = [(first, second) for first in faces for second in faces if kind.fits(first, second)]
    return fitting[random.integers(len(fitting))]


def _choose_other(
    alphabet: Alphabet,
    char: str,
    faces: tuple[Face, Face],
    neighbors: list[str],
    random: np.random.Generator,
) -> str | None:
    """Return a neighbor whose drawing in the second face is unlike the first; None if none is."""
    for place in random.permutation(len(neighbors)):
        other: str = neighbors[int(place)]
        if (
            other != char
            and faces[1] in alphabet.shapes[other]
            and not alphabet.look_alike((char, faces[0]), (other, faces[1]))
        ):
            return other
    return None
