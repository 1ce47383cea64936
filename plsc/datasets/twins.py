"""Which of one face's drawings look alike, found among 60,000 without comparing all of them.

Shapes that are alike stay close under a projection: those that fall into one cell of a coarse grid
over a few random projections are compared in detail, and several such grids (tables) make it
unlikely that a pair is separated in all of them (locality-sensitive hashing). All is computed in
integers, so the answer is the same on every machine.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plsc.datasets.chance import generator

__all__ = ["look_alikes"]

Pairs = npt.NDArray[np.int64]
"""Rows of two drawings, the lower first: [m, 2]."""


class _Search(NamedTuple):
    """How look-alikes of one kind are found."""

    below: int
    """Shapes that differ less in every place look alike (set by eye)."""
    tables: int
    projections: int
    """Per table: more projections, smaller cells."""
    ink_parts: int
    """Drawings whose ink differs by more than one part in so many do not look alike."""


_DENSE = _Search(below=50, tables=12, projections=10, ink_parts=8)
"""Ideographs and syllables, which are told apart by one stroke among many."""
_SIMPLE = _Search(below=100, tables=24, projections=5, ink_parts=4)
"""Letters and signs, which at a standard size are not told apart by proportions (c and C)."""
_CELL = 60 * 16 * 8
"""Width of a cell: 60 gray levels in every 4x4 block (sums of 16), along a diagonal of 64 signs."""
_MOST_IN_CELL = 128
_CHUNK = 1 << 14


def look_alikes(
    codes: npt.NDArray[np.uint32], shapes: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]
) -> Pairs:
    """Return the pairs of one face's drawings that could be taken for each other, sorted.

    Args:
        codes: Code points: [n].
        shapes: [at least n, 32, 32]; may be mapped from disk, a small part is in memory at a time.
        rows: Which of the shapes is each code point's: [n].

    Returns:
        Positions in ``codes``.
    """
    everything = np.arange(len(codes))
    simple = np.flatnonzero(~_is_dense(codes))
    found = [
        places[_close(shapes, rows[places], search)]
        for places, search in ((everything, _DENSE), (simple, _SIMPLE))
    ]
    return np.unique(np.concatenate(found), axis=0)


def _is_dense(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Return which are ideographs (CJK, Tangut) or syllables (Yi, Hangul)."""
    bounds = np.array([0x3400, 0xD7B0, 0x17000, 0x18D90, 0x20000])
    return np.asarray(np.searchsorted(bounds, codes, "right") % 2 == 1)


def _close(shapes: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], search: _Search) -> Pairs:
    """Return which of ``rows`` have shapes that look alike."""
    blocks = np.zeros((len(rows), 64), np.int16)
    for start in range(0, len(rows), _CHUNK):
        chunk = shapes[rows[start : start + _CHUNK]].reshape(-1, 8, 4, 8, 4)
        blocks[start : start + _CHUNK] = chunk.sum((2, 4), dtype=np.int16).reshape(-1, 64)
    columns = np.ascontiguousarray(blocks.T)
    candidates = [np.zeros(0, np.int64)]
    for table in range(search.tables):
        for pair in _in_one_cell(blocks, search, table):
            first, second = _near(columns, *pair, 16 * search.below)
            candidates.append(first * len(rows) + second)
    first, second = np.divmod(np.unique(np.concatenate(candidates)), max(len(rows), 1))
    is_close = np.zeros(len(first), bool)
    for start in range(0, len(first), _CHUNK):
        part = slice(start, start + _CHUNK)
        drawn, other = shapes[rows[first[part]]], shapes[rows[second[part]]]
        difference = np.abs(drawn.astype(np.int16) - other).max((1, 2))
        is_close[part] = difference < search.below
    return np.stack([first[is_close], second[is_close]], axis=1)


def _near(
    columns: npt.NDArray[np.int16],
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    below: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the pairs that differ by less than ``below`` in every one of ``columns``: [64, n].

    Most pairs are gone after a few columns, so this takes about as long as looking at three.
    """
    for column in columns:
        near = np.abs(column[first] - column[second]) < below
        first, second = first[near], second[near]
        if not len(first):
            break
    return first, second


def _in_one_cell(
    blocks: npt.NDArray[np.int16], search: _Search, table: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return the pairs, lower first, that share a cell of a grid and have about as much ink."""
    random = generator("twins", search.projections, table)
    signs = random.choice(np.array([-1, 1], np.int64), (64, search.projections))
    offsets = random.integers(0, _CELL, search.projections)
    cells = (blocks.astype(np.int64) @ signs + offsets) // _CELL
    mixing = random.integers(1, 1 << 62, search.projections) | 1
    keys = (cells * mixing).sum(1)  # wraps around, as it may: equal cells have equal keys
    ink = blocks.sum(1, dtype=np.int64)
    order = np.lexsort((ink, keys))
    keys, ink = keys[order], ink[order]
    pairs = []
    for gap in range(1, _MOST_IN_CELL):
        same = np.flatnonzero(keys[gap:] == keys[:-gap])
        if not len(same):
            break
        same = same[(ink[same + gap] - ink[same]) * search.ink_parts <= ink[same + gap]]
        ends = np.stack([order[same], order[same + gap]])
        pairs.append((ends.min(0), ends.max(0)))
    return pairs
