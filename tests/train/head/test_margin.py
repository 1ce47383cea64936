"""Margins and their derivatives against autograd through an arccos, and at the ends."""

import math

import pytest
import torch

from plsc.conf.schema import GradientMode, HeadConfig, Loss
from plsc.train.head import Margin
from tests.train.reference import margin_by_arccos

MARGINS = [Margin(m2=0.5), Margin(m3=0.35), Margin(m1=1.35), Margin(m1=4.0), Margin(1.2, 0.3, 0.1)]


@pytest.mark.parametrize("margin", MARGINS)
def test_value_and_derivative_equal_those_through_an_arccos(margin):
    cosines = torch.linspace(-0.999, 0.999, 401, dtype=torch.float64, requires_grad=True)
    expected = margin_by_arccos(cosines, margin)
    expected.sum().backward()
    values, slopes = margin.apply(cosines.detach())
    torch.testing.assert_close(values, expected.detach(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(slopes, cosines.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("margin", MARGINS)
def test_value_falls_with_the_angle_all_the_way_to_pi(margin):
    angles = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    values, slopes = margin.apply(angles.cos())
    assert (values.diff() <= 1e-9).all()
    assert (slopes >= -1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("margin", MARGINS)
def test_ends_and_rounding_past_them_stay_finite(margin, dtype):
    cosines = torch.tensor([1.0, -1.0, 1.0000001, -1.0000001], dtype=dtype)
    values, slopes = margin.apply(cosines)
    assert values.dtype == slopes.dtype == dtype
    assert torch.isfinite(values).all()
    assert torch.isfinite(slopes).all()


def test_float32_keeps_its_digits_close_to_one():
    cosines = 1 - torch.logspace(-6, -1, 100)
    values, _ = Margin(m2=0.5).apply(cosines)
    exact = margin_by_arccos(cosines.double(), Margin(m2=0.5))
    assert (values - exact).abs().max() < 1e-7


def test_straight_through_changes_the_derivative_alone():
    cosines = torch.linspace(-0.9, 0.9, 11)
    values, slopes = Margin(m2=0.5, gradient=GradientMode.ste).apply(cosines)
    assert torch.equal(values, Margin(m2=0.5).apply(cosines)[0])
    assert torch.equal(slopes, torch.ones_like(slopes))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (Loss.arcface, (1, 0.25, 0)),
        (Loss.cosface, (1, 0, 0.25)),
        (Loss.combined, (1.1, 0.15, 0.05)),
        (Loss.normalized_softmax, (1, 0, 0)),
        (Loss.softmax, (1, 0, 0)),
    ],
)
def test_half_warmed_up_margin_is_half_of_it(loss, expected):
    config = HeadConfig(loss=loss, margin=0.5, margins=[1.2, 0.3, 0.1])
    margin = Margin.of(config, 0.5)
    assert (margin.m1, margin.m2, margin.m3) == pytest.approx(expected)


def test_sphereface_warms_up_from_a_factor_of_one():
    margin = Margin.of(HeadConfig(loss=Loss.sphereface, margin=3.0), 0.5)
    assert (margin.m1, margin.m2, margin.m3) == (2.0, 0.0, 0.0)
