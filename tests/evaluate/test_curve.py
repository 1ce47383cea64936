"""Thinning a ROC curve keeps what a reader needs of it."""

import math

import numpy as np
import pytest

from plsc.evaluate.curve import MAX_POINTS, thin


def curve(num_pairs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    is_same = np.arange(num_pairs) % 2 == 0
    scores = np.where(is_same, 0.5, 0.0) + generator.normal(0, 0.15, num_pairs)
    order = np.argsort(-scores)
    tar = np.append(0, np.cumsum(is_same[order]) / is_same.sum())
    far = np.append(0, np.cumsum(~is_same[order]) / (~is_same).sum())
    return far, tar, np.append(np.inf, scores[order])


def test_a_large_curve_is_thinned_to_what_kfp_can_keep():
    points = thin(*curve(20_000))
    assert 100 < len(points) <= MAX_POINTS == 200
    assert (points[0].far, points[0].tar) == (0, 0)
    assert (points[-1].far, points[-1].tar) == (1, 1)


def test_every_number_is_finite_and_thresholds_are_cosines():
    for point in thin(*curve(500)):
        assert all(math.isfinite(number) for number in (point.far, point.tar, point.threshold))
        assert -1 <= point.threshold <= 1


def test_far_rises_and_thresholds_fall():
    points = thin(*curve(5_000))
    assert [p.far for p in points] == sorted(p.far for p in points)
    assert [p.threshold for p in points] == sorted((p.threshold for p in points), reverse=True)


def test_small_rates_keep_their_share_of_points():
    small = [point for point in thin(*curve(20_000)) if 0 < point.far < 1e-2]
    assert len(small) >= 20


def test_the_thinned_curve_lies_on_the_curve():
    far, tar, thresholds = curve(20_000)
    points = thin(far, tar, thresholds)
    between = np.interp(0.05, [p.far for p in points], [p.tar for p in points])
    assert between == pytest.approx(np.interp(0.05, far, tar), abs=0.01)


def test_a_curve_of_two_points_stays_as_it_is():
    points = thin(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([np.inf, 0.2]))
    assert [(p.far, p.tar, p.threshold) for p in points] == [(0, 0, 1), (1, 1, 0.2)]
