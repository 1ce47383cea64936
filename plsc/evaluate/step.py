"""Evaluate as a step of the pipeline: the report, and what KFP's page shows of it."""

from pathlib import Path

from plsc import doorway, storage
from plsc.artifacts.report import BenchmarkResult, Report
from plsc.evaluate import stage

__all__ = ["run_step"]


def run_step(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    *,
    model_path: str,
    results_path: str,
    metrics: dict[str, object],
    roc: dict[str, object],
    report_path: str,
) -> None:
    """Verify the checkpoint whose index is the file ``model_path``.

    Args:
        experiment: As ``doorway.step``.
        overrides: As ``doorway.step``.
        data_uri: As ``doorway.step``.
        run_id: As ``doorway.step``.
        model_path: The checkpoint's index.
        results_path: Where the report's index goes, for the gate.
        metrics: Metadata of a KFP ``Metrics`` artifact; filled with one accuracy per benchmark.
        roc: Metadata of a KFP ``ClassificationMetrics``; filled with the ROC curve of the hardest
            benchmark.
        report_path: Where the page goes.

    Raises:
        PlscError: As ``doorway.step`` and ``stage.run`` say.
    """
    with doorway.step(
        "evaluate",
        experiment=experiment,
        overrides=overrides,
        data_uri=data_uri,
        run_id=run_id,
        inputs={"evaluate.checkpoint_uri": model_path},
    ) as config:
        report = stage.run(config)
        report.write(results_path)
        storage.download(report.page.uri, Path(report_path))
        metrics.update(_scalars(report))
        if report.benchmarks:
            roc.update(
                _classification_metrics(min(report.benchmarks, key=lambda result: result.accuracy))
            )


def _scalars(report: Report) -> dict[str, float]:
    """Return the accuracy of each benchmark (finite: the index refuses other numbers)."""
    return {f"accuracy_{result.name}": result.accuracy for result in report.benchmarks}


def _classification_metrics(result: BenchmarkResult) -> dict[str, object]:
    """Return a ROC curve in the shape of KFP's ``ClassificationMetrics.log_roc_curve``."""
    points = [
        {
            "confidenceThreshold": point.threshold,
            "recall": point.tar,
            "falsePositiveRate": point.far,
        }
        for point in result.roc
    ]
    return {"confidenceMetrics": points, "benchmark": result.name}
