"""The evaluate stage from checkpoint to report."""

import hashlib
import sys
from pathlib import Path

import pytest

from plsc import doorway
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.report import Report
from plsc.errors import BenchmarkError, CheckpointError, StorageError
from plsc.evaluate import stage
from plsc.evaluate.__main__ import main
from plsc.models import as_embedder, restore
from plsc.verification import embed, measure, read_benchmark
from tests.samples import BENCHMARKS


def test_the_report_holds_what_the_protocol_measures(config):
    report = stage.run(config)
    assert Report.read(doorway.index_uri(config, "evaluate")) == report
    assert [result.name for result in report.benchmarks] == list(BENCHMARKS)
    benchmark = read_benchmark(config.data_uri, "glyph_cross")
    embedder = as_embedder(restore(Checkpoint.read(config.evaluate.checkpoint_uri)))
    embeddings = embed(benchmark.images, embedder, image_size=32, flip=False, batch_size=7)
    expected = measure(embeddings, benchmark.is_same, folds=5, far_targets=[0.1])
    found = report.benchmarks[0]
    assert found.accuracy == pytest.approx(expected.accuracy)
    assert found.threshold == pytest.approx(expected.threshold)
    assert found.num_pairs == 40
    assert found.pixel_baseline_accuracy > 0.8, "coarse patterns are easy for pixels"
    assert [point.far_target for point in found.tar_at_far] == [0.1, 0.01, 0.001]
    assert report.images_per_s > 0
    assert report.step == 24


def test_the_page_lies_in_the_store_with_the_digest_of_the_index(config):
    report = stage.run(config)
    content = Path(report.page.uri).read_bytes()
    assert report.page.uri == f"{config.store_uri}/runs/test-run/evaluate/verification_report.html"
    assert hashlib.sha256(content).hexdigest() == report.page.sha256
    assert len(content) == report.page.size_bytes
    assert b"glyph_rough" in content


def test_the_checkpoint_decides_the_image_size(config):
    config.image_size = 64
    assert len(stage.run(config).benchmarks) == 3


def corrupt(config) -> None:
    path = Path(Checkpoint.read(config.evaluate.checkpoint_uri).backbone.uri)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_in_the_checkpoint_is_an_error_and_leaves_no_report(config):
    corrupt(config)
    with pytest.raises(CheckpointError, match="altered"):
        stage.run(config)
    assert not Path(doorway.index_uri(config, "evaluate")).exists()


def test_the_command_ends_with_code_3_on_a_corrupted_checkpoint(config, monkeypatch, capsys):
    corrupt(config)
    places = [f"store_uri={config.store_uri}", f"data_uri={config.data_uri}", "run_id=test-run"]
    monkeypatch.setattr(sys, "argv", ["plsc.evaluate", "experiment=tiny", *places])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 3
    assert "CheckpointError" in capsys.readouterr().out


def test_a_missing_benchmark_is_named(config):
    Path(f"{config.data_uri}/glyph_slant.bin").unlink()
    with pytest.raises(StorageError, match=r"glyph_slant\.bin"):
        stage.run(config)


def test_a_truncated_benchmark_is_named(config):
    path = Path(f"{config.data_uri}/glyph_slant.bin")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(BenchmarkError, match=r"glyph_slant\.bin"):
        stage.run(config)
