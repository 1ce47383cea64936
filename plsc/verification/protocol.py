"""The protocol of LFW and its kin, as FaceNet, InsightFace and PLSC measure it.

The squared distance of two embeddings of length 1 lies in 0..4 and is ``2 - 2 * cosine``. Pairs are
cut, in their order, into folds. For each fold the threshold that is best on all *other* folds is
applied to it: a pair is called the same if its distance is less than the threshold (strictly), and
of equally good thresholds the smallest counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plsc.errors import BenchmarkError

__all__ = ["Measurement", "measure"]

_Floats = npt.NDArray[np.float64]
_Counts = npt.NDArray[np.int64]

_ACCURACY_GRID = np.arange(0, 4, 0.01)
_FAR_GRID = np.arange(0, 4, 0.001)
_CHUNK = 65536


@dataclass(frozen=True)
class Measurement:
    """What the protocol says about one benchmark of n pairs."""

    accuracy: float
    """Mean over the folds, 0..1."""
    accuracy_std: float
    """Population standard deviation over the folds."""
    fold_accuracies: _Floats
    """[folds]."""
    threshold: float
    """Mean over the folds of the chosen threshold, as a cosine similarity: the same when above."""
    distance_threshold: float
    """The same threshold as a squared distance, 0..4: the same when below."""
    tar_at_far: dict[float, float]
    """FAR target -> true accept rate, mean over the folds. A target below one over the number of
    different pairs in the other folds means: accept none of them."""
    fpr: _Floats
    """False accept rate along the ROC of all pairs, [points], rising from 0 to 1."""
    tpr: _Floats
    """True accept rate, likewise."""
    thresholds: _Floats
    """Cosine similarity from which pairs are accepted, falling; the first is infinite."""
    similarities: _Floats
    """Cosine similarity of each pair, [n]."""


def measure(
    embeddings: npt.NDArray[np.float32],
    is_same: npt.NDArray[np.bool_],
    *,
    folds: int,
    far_targets: Sequence[float],
) -> Measurement:
    """Measure how well distances of embeddings tell same from different.

    Costs a sort of the pairs per fold, not one pass per threshold.

    Args:
        embeddings: [2n, D], of length 1; pair ``i`` is rows ``2 * i`` and ``2 * i + 1``.
        is_same: [n].
        folds: Number of folds, 2..n. The first ``n % folds`` have one pair more than the others.
        far_targets: False accept rates, each 0..1.

    Raises:
        BenchmarkError: If shapes do not go together, embeddings are not of length 1, there are
            fewer pairs than folds, or no pair is the same or none is different.
    """
    _check(embeddings, is_same, folds)
    distances = _squared_distances(embeddings)
    parts = np.array_split(np.arange(len(is_same)), folds)
    chosen, accuracies = _accuracies(distances, is_same, parts)
    fpr, tpr, thresholds = _roc(1 - distances / 2, is_same)
    distance_threshold = float(np.mean(chosen))
    return Measurement(
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        fold_accuracies=accuracies,
        threshold=1 - distance_threshold / 2,
        distance_threshold=distance_threshold,
        tar_at_far=_tars(distances, is_same, parts, far_targets),
        fpr=fpr,
        tpr=tpr,
        thresholds=thresholds,
        similarities=1 - distances / 2,
    )


def _check(embeddings: npt.NDArray[np.float32], is_same: npt.NDArray[np.bool_], folds: int) -> None:
    num_pairs = len(is_same)
    if embeddings.ndim != 2 or len(embeddings) != 2 * num_pairs:
        raise BenchmarkError(
            f"{num_pairs} pairs need embeddings [{2 * num_pairs}, D], found {embeddings.shape}"
        )
    if not 2 <= folds <= num_pairs:
        raise BenchmarkError(
            f"{num_pairs} pairs cannot make {folds} folds: set evaluate.folds to 2..{num_pairs}"
        )
    if is_same.all() or not is_same.any():
        kind = "different" if is_same.all() else "the same"
        raise BenchmarkError(
            f"none of the {num_pairs} pairs is {kind}: a benchmark needs both kinds"
        )
    lengths = np.linalg.norm(embeddings, axis=1)
    if not np.allclose(lengths, 1, atol=1e-3):
        worst = int(np.argmax(np.abs(np.nan_to_num(lengths, nan=np.inf) - 1)))
        raise BenchmarkError(
            f"embedding {worst} has length {lengths[worst]:.4g}, not 1: normalize embeddings first"
        )


def _squared_distances(embeddings: npt.NDArray[np.float32]) -> _Floats:
    distances = np.empty(len(embeddings) // 2)
    for start in range(0, len(distances), _CHUNK):
        pairs = embeddings[2 * start : 2 * (start + _CHUNK)].astype(np.float64)
        distances[start : start + _CHUNK] = np.square(pairs[::2] - pairs[1::2]).sum(axis=1)
    return distances


def _below(
    distances: _Floats,
    kind: npt.NDArray[np.bool_],
    parts: list[npt.NDArray[np.intp]],
    grid: _Floats,
) -> _Counts:
    """Return how many pairs of a kind lie below each threshold, [folds, thresholds]."""
    return np.array(
        [np.searchsorted(np.sort(distances[part][kind[part]]), grid, side="left") for part in parts]
    )


def _accuracies(
    distances: _Floats, is_same: npt.NDArray[np.bool_], parts: list[npt.NDArray[np.intp]]
) -> tuple[_Floats, _Floats]:
    """Return each fold's threshold, chosen on the others, and the accuracy with it on the fold."""
    accepted_same = _below(distances, is_same, parts, _ACCURACY_GRID)
    accepted_different = _below(distances, ~is_same, parts, _ACCURACY_GRID)
    num_different = np.array([np.sum(~is_same[part]) for part in parts])
    right = accepted_same + num_different[:, None] - accepted_different
    best = np.argmax(right.sum(axis=0) - right, axis=1)
    sizes = np.array([len(part) for part in parts])
    return _ACCURACY_GRID[best], right[np.arange(len(parts)), best] / sizes


def _tars(
    distances: _Floats,
    is_same: npt.NDArray[np.bool_],
    parts: list[npt.NDArray[np.intp]],
    far_targets: Sequence[float],
) -> dict[float, float]:
    """Return the mean true accept rate at the largest threshold that keeps to each FAR target.

    The threshold's FAR is that on the other folds. Folds without same pairs have no rate, and those
    without different pairs outside have no threshold: they do not count. (At least one fold counts,
    since there are pairs of both kinds and no fold is empty.)
    """
    accepted_same = _below(distances, is_same, parts, _FAR_GRID)
    accepted_different = _below(distances, ~is_same, parts, _FAR_GRID)
    num_same = np.array([np.sum(is_same[part]) for part in parts])
    num_different_elsewhere = np.sum(~is_same) - np.array(
        [np.sum(~is_same[part]) for part in parts]
    )
    counts = (num_same > 0) & (num_different_elsewhere > 0)
    elsewhere = (accepted_different.sum(axis=0) - accepted_different)[counts]
    fars = elsewhere / num_different_elsewhere[counts, None]
    rates = accepted_same[counts] / num_same[counts, None]
    found = {}
    for target in far_targets:
        largest = (
            np.sum(fars <= target, axis=1) - 1
        )  # FAR rises with the threshold, from 0 at threshold 0
        found[float(target)] = float(np.mean(rates[np.arange(len(rates)), largest]))
    return found


def _roc(similarities: _Floats, is_same: npt.NDArray[np.bool_]) -> tuple[_Floats, _Floats, _Floats]:
    """Return FAR, TAR and threshold at every distinct similarity, led by (0, 0, infinity)."""
    order = np.argsort(-similarities, kind="stable")
    falling, same = similarities[order], is_same[order]
    last_of_equals = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    tpr = np.cumsum(same)[last_of_equals] / np.sum(same)
    fpr = np.cumsum(~same)[last_of_equals] / np.sum(~same)
    return np.append(0.0, fpr), np.append(0.0, tpr), np.append(np.inf, falling[last_of_equals])
