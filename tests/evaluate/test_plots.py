"""The plots: inline SVG that names no host and takes its colors from the page."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from plsc.artifacts.report import TarAtFar
from plsc.evaluate import plots

RISING = np.linspace(0, 1, 50)


def any_roc() -> str:
    marks = [TarAtFar(far_target=far, tar=0.5) for far in (1e-1, 1e-2, 1e-6)]
    return plots.roc((RISING, np.sqrt(RISING)), (RISING, RISING), marks)


def any_histogram() -> str:
    return plots.histogram(np.linspace(-0.2, 0.9, 40), np.arange(40) > 20, 0.31)


@pytest.mark.parametrize("draw", [any_roc, any_histogram])
def test_a_plot_is_svg_without_hosts_fixed_colors_or_scripts(draw):
    svg = draw()
    assert svg.startswith("<svg role=")
    assert "http" not in svg
    assert "<script" not in svg
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) == set()
    assert "var(--ink)" in svg
    assert "var(--same)" in svg
    ET.fromstring(svg.replace("xlink:href", "href"))


@pytest.mark.parametrize("draw", [any_roc, any_histogram])
def test_the_same_numbers_give_the_same_picture(draw):
    assert draw() == draw()


def test_a_histogram_tells_its_threshold():
    assert ">0.31<" in any_histogram()


@pytest.mark.parametrize("value", [1.0, 0.0, -1.0])
def test_similarities_that_are_all_equal_can_be_drawn(value):
    assert "svg" in plots.histogram(np.full(4, value), np.array([True, True, False, False]), value)


def test_a_perfect_curve_on_few_pairs_can_be_drawn():
    perfect = (np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]))
    assert "svg" in plots.roc(perfect, perfect, [TarAtFar(far_target=0.001, tar=1.0)])
