import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plsc.errors import BenchmarkError
from plsc.verification import measure

FAR_TARGETS = [0.1, 0.01, 0.001]


def unit(array):
    array = np.asarray(array, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def naive(distances, is_same, folds, far_targets):
    """FaceNet's protocol as usually written: one pass over the pairs per fold and threshold."""
    parts = np.array_split(np.arange(len(distances)), folds)
    accuracies, thresholds = [], []
    tars = {target: [] for target in far_targets}
    for part in parts:
        inside = np.zeros(len(distances), bool)
        inside[part] = True
        best, best_right = None, -1
        for threshold in np.arange(0, 4, 0.01):
            right = np.sum((distances < threshold)[~inside] == is_same[~inside])
            if right > best_right:
                best, best_right = threshold, right
        accuracies.append(np.mean((distances < best)[inside] == is_same[inside]))
        thresholds.append(best)
        different, same = ~inside & ~is_same, inside & is_same
        if not different.any() or not same.any():
            continue
        grid = np.arange(0, 4, 0.001)
        fars = np.array([np.sum(distances[different] < t) / np.sum(different) for t in grid])
        for target in far_targets:
            threshold = grid[np.flatnonzero(fars <= target)[-1]]
            tars[target].append(np.mean(distances[same] < threshold))
    return accuracies, thresholds, {target: np.mean(rates) for target, rates in tars.items()}


def distances_of(embeddings):
    pairs = embeddings.astype(np.float64)
    return np.square(pairs[::2] - pairs[1::2]).sum(axis=1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_pairs=st.integers(4, 60),
    folds=st.integers(2, 12),
    spread=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
)
def test_the_measurement_equals_the_naive_protocol_bit_for_bit(seed, num_pairs, folds, spread):
    random = np.random.default_rng(seed)
    is_same = random.random(num_pairs) < 0.5
    is_same[random.integers(num_pairs)] ^= is_same.all() or not is_same.any()
    folds = min(folds, num_pairs)
    first = random.normal(size=(num_pairs, 4))
    second = np.where(is_same[:, None], first, random.normal(size=(num_pairs, 4)))
    noisy = second + spread * random.normal(size=second.shape)
    embeddings = unit(np.stack([first, noisy], axis=1).reshape(-1, 4))

    measured = measure(embeddings, is_same, folds=folds, far_targets=FAR_TARGETS)

    distances = distances_of(embeddings)
    accuracies, thresholds, tars = naive(distances, is_same, folds, FAR_TARGETS)
    assert measured.fold_accuracies.tolist() == accuracies
    assert measured.distance_threshold == float(np.mean(thresholds))
    assert measured.tar_at_far == tars
    assert measured.accuracy == np.mean(accuracies)
    assert measured.accuracy_std == np.std(accuracies)


def ideal(num_pairs=20):
    """Same pairs are equal vectors, different ones are at right angles."""
    is_same = np.arange(num_pairs) % 2 == 0
    first = np.tile([1.0, 0.0], (num_pairs, 1))
    second = np.where(is_same[:, None], first, [0.0, 1.0])
    return unit(np.stack([first, second], axis=1).reshape(-1, 2)), is_same


def test_a_perfect_model_is_measured_as_perfect_with_the_smallest_threshold_that_separates():
    embeddings, is_same = ideal()
    measured = measure(embeddings, is_same, folds=10, far_targets=FAR_TARGETS)
    assert measured.accuracy == 1
    assert measured.accuracy_std == 0
    assert measured.distance_threshold == pytest.approx(0.01)
    assert measured.threshold == pytest.approx(1 - 0.01 / 2)
    assert measured.tar_at_far == dict.fromkeys(FAR_TARGETS, 1.0)
    assert measured.similarities[:2].tolist() == [1, 0]


def test_distance_equal_to_the_threshold_counts_as_different():
    embeddings, is_same = ideal()
    measured = measure(embeddings, ~is_same, folds=2, far_targets=[0.0])
    assert measured.accuracy == 0.5, "threshold 0 accepts nothing, not even distance 0"
    assert measured.tar_at_far == {0.0: 0.0}


def test_the_roc_rises_from_nothing_to_everything_and_its_thresholds_fall():
    random = np.random.default_rng(0)
    embeddings = unit(random.normal(size=(400, 8)))
    is_same = random.random(200) < 0.5
    measured = measure(embeddings, is_same, folds=10, far_targets=[0.1])
    assert (measured.fpr[0], measured.tpr[0]) == (0, 0)
    assert (measured.fpr[-1], measured.tpr[-1]) == (1, 1)
    assert measured.thresholds[0] == math.inf
    assert (np.diff(measured.thresholds) < 0).all()
    assert (np.diff(measured.fpr) >= 0).all()
    assert (np.diff(measured.tpr) >= 0).all()
    middle = len(measured.fpr) // 2
    accepted = measured.similarities >= measured.thresholds[middle]
    assert measured.fpr[middle] == np.mean(accepted[~is_same])
    assert measured.tpr[middle] == np.mean(accepted[is_same])


def test_equal_similarities_are_one_point_of_the_roc():
    embeddings, is_same = ideal()
    measured = measure(embeddings, is_same, folds=2, far_targets=[0.1])
    assert measured.fpr.tolist() == [0, 0, 1]
    assert measured.tpr.tolist() == [0, 1, 1]


def test_folds_of_one_kind_are_measured_and_do_not_count_for_tar():
    embeddings, is_same = ideal(40)
    order = np.argsort(~is_same, kind="stable")
    sorted_embeddings = embeddings.reshape(40, 2, 2)[order].reshape(80, 2)
    measured = measure(sorted_embeddings, is_same[order], folds=4, far_targets=[0.1])
    assert measured.accuracy == 1
    assert measured.tar_at_far == {0.1: 1.0}


def test_far_targets_below_the_resolution_accept_no_different_pair():
    random = np.random.default_rng(1)
    embeddings = unit(random.normal(size=(400, 3)))
    is_same = np.arange(200) % 2 == 0
    measured = measure(embeddings, is_same, folds=10, far_targets=[1e-9, 0.0])
    assert measured.tar_at_far[1e-9] == measured.tar_at_far[0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, s: (e[:-1], s, 2), "20 pairs need embeddings"),
        (lambda e, s: (e, s, 21), "20 pairs cannot make 21 folds"),
        (lambda e, s: (e, s, 1), "cannot make 1 folds"),
        (lambda e, s: (e, np.ones_like(s), 2), "none of the 20 pairs is different"),
        (lambda e, s: (e, np.zeros_like(s), 2), "none of the 20 pairs is the same"),
        (lambda e, s: (e * 2, s, 2), "has length 2, not 1"),
        (lambda e, s: (np.where(np.arange(len(e))[:, None] == 7, np.nan, e), s, 2), "embedding 7"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_reason(change, message):
    embeddings, is_same, folds = change(*ideal())
    with pytest.raises(BenchmarkError, match=message):
        measure(embeddings, is_same, folds=folds, far_targets=[0.1])
