"""The report as an index: what is written is read, and nothing else."""

import pytest

from plsc.artifacts.index import Payload, Provenance
from plsc.artifacts.report import (
    BenchmarkResult,
    GateReport,
    Report,
    RocPoint,
    TarAtFar,
    Verdict,
)
from plsc.errors import ArtifactError

PROVENANCE = Provenance(
    run_id="r1", experiment="tiny", created_at="2026-11-22T16:48:12+00:00", seconds=1.5, config={}
)


def report() -> Report:
    result = BenchmarkResult(
        name="lfw",
        num_pairs=6000,
        accuracy=0.99,
        accuracy_std=0.002,
        threshold=0.31,
        tar_at_far=[TarAtFar(far_target=1e-3, tar=0.97)],
        roc=[RocPoint(threshold=1.0, far=0.0, tar=0.0), RocPoint(threshold=-1, far=1.0, tar=1.0)],
        pixel_baseline_accuracy=0.6,
    )
    page = Payload(uri="s3://b/page.html", size_bytes=1, sha256="0" * 64)
    return Report(provenance=PROVENANCE, step=7, images_per_s=9.5, benchmarks=[result], page=page)


def test_a_report_is_read_as_it_was_written(tmp_path):
    uri = str(tmp_path / "index.json")
    report().write(uri)
    assert Report.read(uri) == report()


def test_a_gate_report_keeps_missing_and_unjudged_benchmarks_apart(tmp_path):
    verdicts = [
        Verdict(benchmark="free", accuracy=0.5, threshold=None, passed=True),
        Verdict(benchmark="gone", accuracy=None, threshold=0.9, passed=False),
    ]
    uri = str(tmp_path / "index.json")
    GateReport(provenance=PROVENANCE, verdicts=verdicts).write(uri)
    assert GateReport.read(uri).verdicts == verdicts


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b'"accuracy": 0.99', b'"accuracy": NaN'),
        (b'"accuracy": 0.99', b'"acuracy": 0.99'),
        (b'"format": 1', b'"format": 2'),
        (b'"kind": "Report"', b'"kind": "Checkpoint"'),
        (b"}\n", b""),
    ],
)
def test_an_altered_report_is_refused_by_name(written, read):
    content = report().to_json()
    assert written in content
    with pytest.raises(ArtifactError, match=r"s3://b/index\.json"):
        Report.from_json(content.replace(written, read), "s3://b/index.json")
