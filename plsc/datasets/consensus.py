"""Faces whose character map is wrong for a whole block: they draw each character as another.

(cwTeXHeiBold, for one, draws every Hangul syllable as the next but one.) No drawing betrays it by
itself, neighbors resemble each other too much; a block of them does.
"""

import itertools

import numpy as np
import numpy.typing as npt

from plsc.datasets.survey import Surveyed

__all__ = ["misplaced"]

_BLOCK_BITS = 8
_SAMPLE = 128
_FEWEST = 16
"""So many drawings it takes to judge a face's block."""
_AGREES = 0.66
"""A drawing is more like the others' of its own character than of the next one: by chance half the
time, in faces that are right nearly always."""


def misplaced(
    surveyed: list[Surveyed], codes: npt.NDArray[np.uint32], rows: npt.NDArray[np.int32]
) -> list[tuple[slice, int]]:
    """Return where faces disagree with the others: a run of ``codes``, and the face's column.

    Args:
        surveyed: What the faces draw.
        codes: Code points, increasing: [n].
        rows: Which drawing of each face is each code point's, -1 for none: [n, faces].
    """
    shapes = [face.shapes() for face in surveyed]
    starts = np.flatnonzero(np.diff(codes >> _BLOCK_BITS, prepend=-1))
    found = []
    for start, stop in itertools.pairwise([*starts, len(codes)]):
        block = rows[start:stop]
        # Places whose next code point is drawn too: the pairs that are compared.
        places = np.flatnonzero(np.diff(codes[start:stop].astype(np.int64)) == 1)
        places = places[:: max(1, len(places) // _SAMPLE)]
        if len(places) >= _FEWEST:
            columns = _disagreeing(shapes, block, places)
            found += [(slice(int(start), int(stop)), column) for column in columns]
    return found


def _disagreeing(
    shapes: list[npt.NDArray[np.uint8]],
    block: npt.NDArray[np.int32],
    places: npt.NDArray[np.int64],
) -> list[int]:
    """Return the columns of a block that disagree, the worst first, each judged by those left."""
    own, following = block[places], block[places + 1]
    columns = [int(c) for c in np.flatnonzero((own >= 0).sum(0) >= _FEWEST)]
    drawn = {c: (_unit(shapes[c], own[:, c]), _unit(shapes[c], following[:, c])) for c in columns}
    dropped = []
    while len(drawn) > 1:
        same_sum = sum(pair[0] for pair in drawn.values())
        next_sum = sum(pair[1] for pair in drawn.values())
        agreement = {}
        for column, (same, following_one) in drawn.items():
            same_others, next_others = same_sum - same, next_sum - following_one
            like_same = (same * same_others).sum(1) / _length(same_others)
            like_next = (same * next_others).sum(1) / _length(next_others)
            known = (like_same != 0) & (like_next != 0)
            if known.sum() >= _FEWEST:
                agreement[column] = float((like_same > like_next)[known].mean())
        worst = min(agreement, key=lambda column: agreement[column], default=None)
        if worst is None or agreement[worst] >= _AGREES:
            break
        dropped.append(worst)
        del drawn[worst]
    return dropped


def _unit(shapes: npt.NDArray[np.uint8], rows: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return shapes as rows of length 1 and mean 0, zeros where a row is -1: [n, 1024]."""
    flat = shapes[rows.clip(0)].reshape(len(rows), -1).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    flat[rows < 0] = 0
    return np.asarray(flat / _length(flat)[:, None])


def _length(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.maximum(np.linalg.norm(rows, axis=1), 1e-9))
