"""Which characters of a folder of fonts are classes, and which of the drawings show each of them.

=================  ================================================================================
a *design*         faces that share most drawings (locale variants, Pro and Mono): later ones only
                   add what earlier ones lack
misplaced          blocks that a face draws as other characters: its map is wrong
too few            characters that fewer faces draw than asked
twins              characters that two families draw alike: the lowest code point stays
half a twin        drawn alike in one family of several: its drawings of the later one go
copies             one character's drawings in two faces that are the same picture: one stays
=================  ================================================================================
"""

import collections
import dataclasses
import logging
from collections.abc import Iterable
from concurrent.futures import Executor

import numpy as np
import numpy.typing as npt

from plsc.datasets.alphabet import SAME_DRAWING, Alphabet, Shape
from plsc.datasets.consensus import misplaced
from plsc.datasets.faces import Face
from plsc.datasets.survey import Surveyed
from plsc.datasets.twins import look_alikes
from plsc.progress import track

__all__ = ["Repertoire", "choose_repertoire"]

log = logging.getLogger("plsc.datasets.repertoire")

_SAMPLE = 256
_VARIANT = 0.5
_FEWEST_TO_COMPARE = 16
_FEWEST_TWINS = 2
"""Families that must draw two characters alike for them to be one. Each is asked by its face with
most characters: its other weights would say the same."""


class Repertoire:
    """Characters, and which face draws which."""

    def __init__(self, surveyed: list[Surveyed], min_faces: int) -> None:
        self.surveyed = surveyed
        self._designs = _designs(surveyed)
        self.faces = [
            dataclasses.replace(face.face, family=surveyed[design].face.family)
            for face, design in zip(surveyed, self._designs, strict=True)
        ]
        first: dict[str, int] = {}
        for column, family in enumerate(face.family for face in self.faces):
            first.setdefault(family, column)
        self._voters = list(first.values())
        self.codes = np.unique(np.concatenate([face.codes for face in surveyed]))
        self._min_faces = min_faces
        self._rows = np.full((len(self.codes), len(surveyed)), -1, np.int32)
        for column, face in enumerate(surveyed):
            self._rows[np.searchsorted(self.codes, face.codes), column] = np.arange(len(face.codes))

    def __len__(self) -> int:
        return len(self.codes)

    def characters(self) -> dict[str, tuple[Face, ...]]:
        """Return the characters in code point order, each with the faces that draw it."""
        return {
            chr(code): tuple(self.faces[column] for column in np.flatnonzero(drawn).tolist())
            for code, drawn in zip(self.codes.tolist(), self._rows >= 0, strict=True)
        }

    def alphabet(self, chars: Iterable[str]) -> Alphabet:
        """Return the shapes of a few characters' drawings (about 1 KB each, in memory)."""
        shapes = [face.shapes() for face in self.surveyed]
        found: dict[str, dict[Face, Shape]] = {}
        for char in chars:
            rows = self._rows[np.searchsorted(self.codes, ord(char))]
            found[char] = {
                self.faces[column]: np.array(shapes[column][rows[column]])
                for column in np.flatnonzero(rows >= 0).tolist()
            }
        return Alphabet(found)

    def keep_common(self) -> None:
        """Leave out characters that too few faces draw."""
        enough = (self._rows >= 0).sum(1) >= self._min_faces
        self.codes, self._rows = self.codes[enough], self._rows[enough]

    def keep_one_of_each_design(self) -> None:
        """Leave out what variants of one design draw again, and then what few faces draw."""
        drawn: dict[int, npt.NDArray[np.bool_]] = {}
        for column, design in enumerate(self._designs):
            earlier = drawn.setdefault(design, np.zeros(len(self.codes), bool))
            self._rows[earlier, column] = -1
            earlier |= self._rows[:, column] >= 0

    def drop_misplaced(self) -> None:
        """Leave out what a face draws in blocks where it disagrees with the others."""
        for places, column in misplaced(self.surveyed, self.codes, self._rows):
            log.warning(
                "%s draws U+%04X to U+%04X unlike the others: left out",
                self.faces[column].name, self.codes[places.start], self.codes[places.stop - 1],
            )  # fmt: skip
            self._rows[places, column] = -1

    def keep_one_of_twins(self, pool: Executor) -> None:
        """Leave out characters that look like an earlier one, and drawings that do."""
        votes = self._votes(pool)
        pairs, counts = np.unique(votes[:, :2], axis=0, return_counts=True)
        drawn = self._rows[:, self._voters] >= 0
        shared = (drawn[pairs[:, 0]] & drawn[pairs[:, 1]]).sum(1)
        are_one = counts >= np.minimum(_FEWEST_TWINS, shared)
        rivals: dict[int, list[int]] = collections.defaultdict(list)
        for earlier, later in pairs[are_one].tolist():
            rivals[later].append(earlier)
        kept: set[int] = set()
        for place in range(len(self.codes)):
            if kept.isdisjoint(rivals.get(place, ())):
                kept.add(place)
        families = np.array([face.family for face in self.faces])
        for earlier, later, column in votes.tolist():
            if earlier in kept and later in kept:
                self._rows[later, families == families[column]] = -1
        order = sorted(kept)
        self.codes, self._rows = self.codes[order], self._rows[order]

    def _votes(self, pool: Executor) -> npt.NDArray[np.int64]:
        """Return which characters look alike in which family: rows (earlier, later, column)."""
        wanted = [self.codes[self._rows[:, column] >= 0] for column in self._voters]
        voters = [self.surveyed[column] for column in self._voters]
        found = track(
            log,
            "look-alikes",
            pool.map(_twins_of, voters, wanted),
            total=len(voters),
            unit="families",
        )
        votes = [np.zeros((0, 3), np.int64)]
        for column, pairs in zip(self._voters, found, strict=True):
            places = np.searchsorted(self.codes, pairs)
            votes.append(np.insert(places, 2, column, axis=1))
        return np.concatenate(votes)

    def drop_copies(self) -> None:
        """Leave out drawings of a character that are the same picture as an earlier face's."""
        shapes = [face.shapes() for face in self.surveyed]
        for rows in self._rows:
            columns = np.flatnonzero(rows >= 0)
            drawn = np.stack([shapes[column][rows[column]] for column in columns]).astype(np.int16)
            flat = drawn.reshape(len(columns), -1)
            for number in range(1, len(columns)):
                earlier = flat[:number][rows[columns[:number]] >= 0]
                if np.abs(earlier - flat[number]).max(1).min() < SAME_DRAWING:
                    rows[columns[number]] = -1


def choose_repertoire(pool: Executor, surveyed: list[Surveyed], *, min_faces: int) -> Repertoire:
    """Return the characters that are classes.

    Args:
        pool: Compares one face's drawings per task.
        surveyed: What the faces draw.
        min_faces: Characters drawn by fewer faces are left out.
    """
    chosen = Repertoire(surveyed, min_faces)
    told = [f"{len(chosen)} drawn at all"]
    for what, step in (
        (f"{min_faces} faces or more", chosen.keep_one_of_each_design),
        ("faces that agree", chosen.drop_misplaced),
        ("no look-alikes", lambda: chosen.keep_one_of_twins(pool)),
        ("no copies", chosen.drop_copies),
    ):
        step()
        chosen.keep_common()
        told.append(f"{len(chosen)} with {what}")
    log.info("characters: %s", ", ".join(told))
    return chosen


def _twins_of(face: Surveyed, codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return one face's pairs of look-alikes among ``codes``, as code points (a pool's task)."""
    rows = np.searchsorted(face.codes, codes)
    return np.asarray(codes[look_alikes(codes, face.shapes(), rows)])


def _designs(surveyed: list[Surveyed]) -> list[int]:
    """Return for each face the first one of its design."""
    leaders: list[int] = []
    designs = []
    for column, face in enumerate(surveyed):
        same = (leader for leader in leaders if _is_variant(face, surveyed[leader]))
        designs.append(next(same, column))
        if designs[-1] == column:
            leaders.append(column)
    return designs


def _is_variant(face: Surveyed, leader: Surveyed) -> bool:
    """Return whether most of a sample of what ``face`` draws is the same in ``leader``."""
    step = -(-len(face.codes) // _SAMPLE)
    rows = np.arange(0, len(face.codes), step)
    places = np.searchsorted(leader.codes, face.codes[rows]).clip(max=len(leader.codes) - 1)
    common = leader.codes[places] == face.codes[rows]
    if common.sum() < _FEWEST_TO_COMPARE:
        return False
    drawn, other = face.shapes()[rows[common]], leader.shapes()[places[common]]
    differences = np.abs(drawn.astype(np.int16) - other).reshape(len(drawn), -1).max(1)
    return bool((differences < SAME_DRAWING).mean() > _VARIANT)
