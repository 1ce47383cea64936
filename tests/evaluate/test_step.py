"""Evaluate as KFP's component calls it."""

import json
import math
from pathlib import Path

import pytest
from kfp.dsl import ClassificationMetrics

from plsc.artifacts.report import Report
from plsc.evaluate import step
from tests.samples import BENCHMARKS


@pytest.fixture
def outputs(config, tmp_path):
    """What a step left: the report, its page, and the metadata that it filled."""
    metrics: dict[str, object] = {}
    roc: dict[str, object] = {}
    model = Path(config.evaluate.checkpoint_uri).rename(tmp_path / "model")
    step.run_step(
        "tiny",
        f"store_uri={config.store_uri}",
        config.data_uri,
        "test-run",
        model_path=str(model),
        results_path=str(tmp_path / "results"),
        metrics=metrics,
        roc=roc,
        report_path=str(tmp_path / "report.html"),
    )
    return Report.read(str(tmp_path / "results")), tmp_path / "report.html", metrics, roc


def test_the_step_hands_on_report_page_and_metadata(outputs):
    report, page, metrics, roc = outputs
    assert page.read_bytes() == Path(report.page.uri).read_bytes()
    assert set(metrics) == {f"accuracy_{name}" for name in BENCHMARKS}
    assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
    assert metrics["accuracy_glyph_rough"] == report.benchmarks[2].accuracy
    hardest = min(report.benchmarks, key=lambda result: result.accuracy)
    assert roc["benchmark"] == hardest.name
    json.dumps([metrics, roc], allow_nan=False)


def test_the_roc_has_the_shape_that_kfp_draws(outputs):
    *_, roc = outputs
    points = roc["confidenceMetrics"]
    assert 2 <= len(points) <= 200
    drawn = ClassificationMetrics()
    drawn.log_roc_curve(
        fpr=[point["falsePositiveRate"] for point in points],
        tpr=[point["recall"] for point in points],
        threshold=[point["confidenceThreshold"] for point in points],
    )
    assert drawn.metadata["confidenceMetrics"] == points
