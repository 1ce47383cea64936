"""The gate: the report's accuracies against the configured thresholds. It is a task that fails.

Nothing here needs torch: the step runs in a light image.
"""

import html
import logging
from collections.abc import Mapping, Sequence

from plsc import doorway
from plsc.artifacts.report import BenchmarkResult, GateReport, Report, Verdict
from plsc.conf.schema import PipelineConfig
from plsc.errors import GateFailed

__all__ = ["judge", "markdown", "run"]

log = logging.getLogger(__name__)

_ROUNDING = 1e-9
"""A mean over folds that equals the threshold up to floating-point rounding passes."""


def judge(results: Sequence[BenchmarkResult], thresholds: Mapping[str, float]) -> list[Verdict]:
    """Return a verdict per benchmark: those measured in order, then thresholds that met none.

    Args:
        results: What was measured.
        thresholds: Benchmark -> smallest accuracy (0..1) that passes. A benchmark without one
            passes unjudged; one that was not measured fails.
    """
    measured = {result.name: result.accuracy for result in results}
    names = [*measured, *(name for name in thresholds if name not in measured)]
    return [_verdict(name, measured.get(name), thresholds.get(name)) for name in names]


def _verdict(name: str, accuracy: float | None, threshold: float | None) -> Verdict:
    passed = threshold is None or (accuracy is not None and accuracy >= threshold - _ROUNDING)
    return Verdict(benchmark=name, accuracy=accuracy, threshold=threshold, passed=passed)


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a Markdown table (names escaped: they are data)."""
    lines = ["| Benchmark | Accuracy | Threshold | Verdict |", "|:--|--:|--:|:--|"]
    for verdict in verdicts:
        accuracy = "missing" if verdict.accuracy is None else f"{verdict.accuracy:.4f}"
        threshold = "none" if verdict.threshold is None else f"{verdict.threshold:.4f}"
        lines.append(
            f"| {_escaped(verdict.benchmark)} | {accuracy} | {threshold} | {_word(verdict)} |"
        )
    return "\n".join(lines) + "\n"


def _word(verdict: Verdict) -> str:
    if verdict.passed:
        return "passed" if verdict.threshold is not None else "not judged"
    if verdict.accuracy is None or verdict.threshold is None:
        return "**failed**: not in the report"
    return f"**failed** by {verdict.threshold - verdict.accuracy:.2g}"


def _escaped(text: str) -> str:
    one_line = html.escape(" ".join(text.split()))
    return "".join(
        f"\\{character}" if character in r"\`*_[]|~#!" else character for character in one_line
    )


def run(config: PipelineConfig) -> GateReport:
    """Judge the report at ``config.evaluate.report_uri``; write the gate's index when it passes.

    The table goes to the log as well: a failed pipeline task's artifacts are not uploaded.

    Raises:
        GateFailed: If a benchmark is below its threshold or missing: each is named with its gap.
        StorageError, ArtifactError: If the report cannot be read.
    """
    watch = doorway.Stopwatch()
    verdicts = judge(Report.read(config.evaluate.report_uri).benchmarks, config.evaluate.thresholds)
    for line in markdown(verdicts).splitlines():
        log.info("%s", line)
    failed = [_complaint(verdict) for verdict in verdicts if not verdict.passed]
    if failed:
        raise GateFailed(
            f"{'; '.join(failed)}: train on, or lower evaluate.thresholds. Nothing is deployed."
        )
    if not config.evaluate.thresholds:
        log.warning("evaluate.thresholds is empty: every model passes this gate")
    passed = GateReport(provenance=watch.provenance(config), verdicts=verdicts)
    passed.write(doorway.index_uri(config, "gate"))
    return passed


def _complaint(verdict: Verdict) -> str:
    if verdict.accuracy is None or verdict.threshold is None:
        return (
            f"benchmark {verdict.benchmark!r} has the threshold {verdict.threshold},"
            " but the report does not hold it"
        )
    gap = verdict.threshold - verdict.accuracy
    return (
        f"benchmark {verdict.benchmark!r} verifies at {verdict.accuracy:.4f}, {gap:.2g} below"
        f" its threshold {verdict.threshold:.4f}"
    )
