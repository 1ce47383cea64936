"""The page: self-contained, free of scripts, and a place where data stays text."""

import html.parser

import numpy as np
import pytest

from plsc.artifacts.report import BenchmarkResult, TarAtFar
from plsc.conf.schema import EvaluateConfig
from plsc.evaluate import gate, page
from plsc.evaluate.section import make_section
from plsc.verification import Benchmark
from tests.samples import patterns

HOSTILE = "\"><script src='https://evil.example/x.js'></script><img src=x onerror=alert(1)>"


def section(name: str, num_pairs: int = 20) -> page.Section:
    generator = np.random.default_rng(0)
    drawn = patterns("any", 32, num_pairs, seed=0)
    embeddings = generator.normal(size=(2 * num_pairs, 8))
    embeddings[1::4] = embeddings[0::4] + 0.3 * embeddings[1::4]  # pairs 0, 2, 4, ... are the same
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    benchmark = Benchmark(name, drawn.images, drawn.is_same)
    return make_section(benchmark, embeddings, EvaluateConfig(folds=5), image_size=32)


def render(*sections: page.Section, **thresholds: float) -> str:
    heading = page.Heading("exp", "run-1", 1234, "2026-11-22T16:48:12+00:00", 987.6)
    verdicts = gate.judge([shown.result for shown in sections], thresholds)
    return page.render(heading, sections, verdicts)


class Elements(html.parser.HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("name", ["lfw", HOSTILE])
def test_the_page_loads_nothing_and_runs_nothing(name):
    elements = Elements(render(section(name), lfw=0.5)).found
    tags = {tag for tag, _ in elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    for _, attributes in elements:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "xlink:href"):
            assert (attributes.get(key) or "#").startswith(("data:image/jpeg;base64,", "#"))
    policies = [found for tag, found in elements if tag == "meta" and "http-equiv" in found]
    assert "default-src 'none'" in str(policies)
    assert len([tag for tag, _ in elements if tag == "img"]) == 24


def test_a_hostile_benchmark_name_is_shown_as_text():
    text = render(section(HOSTILE), **{HOSTILE: 0.99, "<b>gone</b>": 0.5})
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script src=" in text
    assert "&amp;lt;" not in text, "escaped once, not twice"


def test_styles_name_no_host():
    text = render(section("lfw"))
    assert "url(http" not in text
    assert "@import" not in text
    assert "//" not in text.replace("base64,//", "").split("<body>")[0]


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ({"lfw": 0.1}, "Passes the gate"),
        ({"lfw": 1.01}, "Below the threshold: lfw."),
        ({"lfw": 0.1, "gone": 0.5}, "Below the threshold: gone."),
        ({}, "the gate lets every model through"),
    ],
)
def test_the_verdict_leads(thresholds, words):
    assert words in render(section("lfw"), **thresholds)


def test_a_rate_that_rests_on_few_pairs_is_marked():
    shown = section("lfw")
    assert shown.num_different == 10
    assert shown.rests_on_few(TarAtFar(far_target=0.5, tar=1.0))
    assert not shown.rests_on_few(TarAtFar(far_target=1.0, tar=1.0))


def test_the_table_shows_what_was_measured():
    shown = section("lfw")
    text = render(shown, lfw=0.25)
    result: BenchmarkResult = shown.result
    for fraction in (result.accuracy, result.accuracy_std, result.pixel_baseline_accuracy, 0.25):
        assert f"{100 * fraction:.2f}" in text
    assert f"{result.threshold:.3f}" in text
    assert "FAR 1e-3" in text
    assert "step 1,234" in text
    assert "2026-11-22 16:48 UTC" in text
