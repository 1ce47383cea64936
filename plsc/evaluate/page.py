"""The report's page: one HTML file that needs nothing else, for narrow frames and large screens.

It holds no script, and its own content policy forbids to load anything. The template escapes all
text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2

from plsc.artifacts.report import BenchmarkResult, TarAtFar, Verdict
from plsc.evaluate.pairs import Pair

__all__ = ["Heading", "Section", "render"]

_FEW_PAIRS = 10


@dataclass(frozen=True)
class Heading:
    """Which model was verified, when, and how fast."""

    experiment: str
    run_id: str
    step: int
    created_at: str
    images_per_s: float


@dataclass(frozen=True)
class Section:
    """What the page shows of one benchmark."""

    result: BenchmarkResult
    num_same: int
    num_different: int
    roc: str
    """SVG."""
    histogram: str
    """SVG."""
    least_alike: Sequence[Pair]
    most_alike: Sequence[Pair]

    def rests_on_few(self, point: TarAtFar) -> bool:
        """Return whether fewer than ten different pairs decide this operating point."""
        return point.far_target * self.num_different < _FEW_PAIRS


def render(heading: Heading, sections: Sequence[Section], verdicts: Sequence[Verdict]) -> str:
    """Return the page.

    Args:
        heading: Its head.
        sections: One per benchmark.
        verdicts: The gate's, by the same names (and of benchmarks that are missing).
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "far": _far}
    template = environment.from_string(
        resources.files("plsc.evaluate").joinpath("report.html").read_text("utf-8")
    )
    return template.render(
        heading=heading,
        sections=sections,
        verdicts={verdict.benchmark: verdict for verdict in verdicts},
        missing=[verdict for verdict in verdicts if verdict.accuracy is None],
        judged=any(verdict.threshold is not None for verdict in verdicts),
        passed=all(verdict.passed for verdict in verdicts),
        mean=sum(section.result.accuracy for section in sections) / max(len(sections), 1),
    )


def _percent(fraction: float, decimals: int = 2) -> str:
    return f"{100 * fraction:.{decimals}f}"


def _far(rate: float) -> str:
    """Return a rate as 1e-3, not 0.001 or 1e-03."""
    mantissa, exponent = f"{rate:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"
