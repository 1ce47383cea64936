"""The gate: what passes, what fails, and what it says."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from plsc import doorway
from plsc.artifacts.index import Payload
from plsc.artifacts.report import BenchmarkResult, GateReport, Report
from plsc.conf.schema import PipelineConfig
from plsc.errors import ArtifactError, GateFailed
from plsc.evaluate import gate, gate_step
from tests.samples import tiny

HALF = "{glyph_cross:0.5,glyph_slant:0.5,glyph_rough:0.5}"


def result(name: str, accuracy: float) -> BenchmarkResult:
    return BenchmarkResult(
        name=name,
        num_pairs=100,
        accuracy=accuracy,
        accuracy_std=0.01,
        threshold=0.3,
        tar_at_far=[],
        roc=[],
        pixel_baseline_accuracy=0.6,
    )


def write_report(config: PipelineConfig, **accuracies: float) -> str:
    report = Report(
        provenance=doorway.Stopwatch().provenance(config),
        step=1,
        images_per_s=1.0,
        benchmarks=[result(name, accuracy) for name, accuracy in accuracies.items()],
        page=Payload(uri="page.html", size_bytes=0, sha256="0" * 64),
    )
    report.write(config.evaluate.report_uri)
    return config.evaluate.report_uri


def verdicts(thresholds: dict[str, float], **accuracies: float) -> dict[str, bool]:
    results = [result(name, accuracy) for name, accuracy in accuracies.items()]
    return {verdict.benchmark: verdict.passed for verdict in gate.judge(results, thresholds)}


@pytest.mark.parametrize(
    ("accuracy", "threshold", "passed"),
    [
        (0.9501, 0.95, True),
        (0.95, 0.95, True),
        (sum([0.95] * 10) / 10 - 1e-15, 0.95, True),  # a mean over folds, rounded down
        (0.9499, 0.95, False),
        (1.0, 1.01, False),
        (0.0, 0.0, True),
    ],
)
def test_a_benchmark_passes_from_its_threshold_up(accuracy, threshold, passed):
    assert verdicts({"lfw": threshold}, lfw=accuracy) == {"lfw": passed}


def test_a_benchmark_without_threshold_passes_and_one_without_measurement_fails():
    assert verdicts({"gone": 0.5}, lfw=0.1) == {"lfw": True, "gone": False}


def test_the_table_names_accuracy_threshold_and_gap():
    results = [result("lfw", 0.9931), result("cfp_fp", 0.9483), result("free", 0.5)]
    table = gate.markdown(gate.judge(results, {"lfw": 0.99, "cfp_fp": 0.95, "gone": 0.9}))
    assert table == (
        "| Benchmark | Accuracy | Threshold | Verdict |\n"
        "|:--|--:|--:|:--|\n"
        "| lfw | 0.9931 | 0.9900 | passed |\n"
        "| cfp\\_fp | 0.9483 | 0.9500 | **failed** by 0.0017 |\n"
        "| free | 0.5000 | none | not judged |\n"
        "| gone | missing | 0.9000 | **failed**: not in the report |\n"
    )


def test_a_hostile_benchmark_name_stays_text_in_the_table():
    name = "x | y\n<script>alert(1)</script> ![](http://a) `c`"
    row = gate.markdown(gate.judge([result(name, 0.9)], {})).splitlines()[-1]
    assert "<" not in row.replace("&lt;", "")
    assert row.count("|") - row.count("\\|") == 5
    assert "\\!\\[\\]" in row
    assert "\\`c\\`" in row


def test_the_error_names_every_failing_benchmark_with_its_gap(tmp_path):
    thresholds = "evaluate.thresholds={glyph_cross:0.95,glyph_slant:0.95,glyph_rough:0.93}"
    config = tiny(tmp_path, thresholds)
    write_report(config, glyph_cross=0.9871, glyph_slant=0.9483)
    with pytest.raises(GateFailed) as caught:
        gate.run(config)
    message = str(caught.value)
    assert "'glyph_slant' verifies at 0.9483, 0.0017 below its threshold 0.9500" in message
    assert "'glyph_rough' has the threshold 0.93, but the report does not hold it" in message
    assert "glyph_cross" not in message
    assert caught.value.exit_code == 4
    assert not Path(doorway.index_uri(config, "gate")).exists()


def test_passing_writes_the_gates_index(tmp_path):
    config = tiny(tmp_path, f"evaluate.thresholds={HALF}")
    write_report(config, glyph_cross=0.9, glyph_slant=0.8, glyph_rough=0.7)
    passed = gate.run(config)
    assert GateReport.read(doorway.index_uri(config, "gate")) == passed
    assert [verdict.threshold for verdict in passed.verdicts] == [0.5, 0.5, 0.5]


def test_a_gate_without_thresholds_says_so(tmp_path, caplog):
    config = tiny(tmp_path)
    config.evaluate.thresholds = {}
    write_report(config, lfw=0.1)
    with caplog.at_level(logging.WARNING):
        gate.run(config)
    assert "every model passes" in caplog.text


def test_an_index_of_another_kind_is_refused(tmp_path):
    config = tiny(tmp_path)
    uri = write_report(config, glyph_cross=0.9)
    text = Path(uri).read_text().replace('"kind": "Report"', '"kind": "Checkpoint"')
    Path(uri).write_text(text)
    with pytest.raises(ArtifactError, match="expected an index of kind Report"):
        gate.run(config)


def step(tmp_path: Path, results: str, overrides: str = "") -> Path:
    table = tmp_path / "gate_report.md"
    gate_step.run_step(
        "tiny",
        f"store_uri={tmp_path}/store {overrides}",
        f"{tmp_path}/data",
        "test-run",
        results_path=results,
        gate_report_path=str(table),
    )
    return table


def test_the_step_reads_the_report_it_is_given_and_writes_the_table(tmp_path):
    results = write_report(tiny(tmp_path), glyph_cross=0.9, glyph_slant=0.8, glyph_rough=0.7)
    moved = Path(results).rename(tmp_path / "results")
    table = step(tmp_path, str(moved), f"evaluate.thresholds={HALF}")
    assert "| glyph\\_rough | 0.7000 | 0.5000 | passed |" in table.read_text()


def test_a_failing_step_leaves_its_table_in_file_and_log(tmp_path, capsys):
    results = write_report(tiny(tmp_path), glyph_cross=0.9, glyph_slant=0.8, glyph_rough=0.7)
    with pytest.raises(GateFailed):
        step(tmp_path, results, "evaluate.thresholds.glyph_rough=1.01")
    row = "| glyph\\_rough | 0.7000 | 1.0100 | **failed** by 0.31 |"
    assert row in (tmp_path / "gate_report.md").read_text()
    assert f"[gate] {row}" in capsys.readouterr().out


def test_the_gate_needs_neither_torch_nor_matplotlib():
    code = (
        "import sys, plsc.evaluate.gate_step; heavy = {'torch', 'matplotlib', 'onnx'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
