"""The gate as a step of the pipeline."""

from pathlib import Path

from plsc import doorway
from plsc.artifacts.report import Report
from plsc.evaluate import gate

__all__ = ["run_step"]


def run_step(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    *,
    results_path: str,
    gate_report_path: str,
) -> None:
    """Judge the report whose index is the file ``results_path``.

    The table goes to ``gate_report_path`` whatever the verdict.

    Raises:
        GateFailed: If a benchmark is below its threshold or missing.
        ConfigError, StorageError, ArtifactError: As ``doorway.step`` and ``gate.run`` say.
    """
    with doorway.step(
        "gate",
        experiment=experiment,
        overrides=overrides,
        data_uri=data_uri,
        run_id=run_id,
        inputs={"evaluate.report_uri": results_path},
    ) as config:
        report = Report.read(config.evaluate.report_uri)
        table = gate.markdown(gate.judge(report.benchmarks, config.evaluate.thresholds))
        Path(gate_report_path).write_text(table, encoding="utf-8")
        gate.run(config)
