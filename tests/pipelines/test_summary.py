import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from pipelines import failure, outcome, sample_data
from pipelines.outcome import Failure, Indexes, Outcome
from pipelines.request import Request
from pipelines.summary import print_summary
from plsc import conf, doorway, storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.deployment import Deployment
from plsc.artifacts.index import Payload, Provenance
from plsc.artifacts.onnx_model import OnnxModel
from plsc.artifacts.report import BenchmarkResult, Report, TarAtFar
from plsc.conf.schema import PipelineConfig
from plsc.errors import GateFailed

MADE = Provenance(
    run_id="r1", experiment="tiny", created_at="2026-01-01T00:00:00+00:00", seconds=1, config={}
)
FILE = Payload(uri="s3://b/x", size_bytes=2_140_000, sha256="0" * 64)


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return conf.compose("tiny", "run_id=r1", f"store_uri={tmp_path}/store")


@pytest.fixture
def indexes(config: PipelineConfig) -> Indexes:
    """All but the data set's."""
    made = {
        "train": Checkpoint(
            provenance=MADE,
            step=1240,
            epoch=6,
            samples_seen=100,
            num_classes=40,
            embedding_size=128,
            ranks=2,
            dataset_uri="s3://b/d",
            backbone=FILE,
            head=[],
            figures={"samples_per_s": 612.3, "loss": 0.31},
        ),
        "evaluate": Report(
            provenance=MADE,
            step=1240,
            images_per_s=850,
            benchmarks=[benchmark("glyph_cross", 0.98), benchmark("glyph_rough", 0.94)],
            page=FILE,
        ),
        "export": OnnxModel(
            provenance=MADE,
            graph=FILE,
            opset=20,
            image_size=32,
            embedding_size=128,
            parity_max_abs=3.1e-7,
        ),
        "deploy": Deployment(
            provenance=MADE,
            endpoint="127.0.0.1:8001",
            model="tiny",
            version=2,
            previous_version=1,
            repository_uri="s3://b/models",
            graph_sha256="0" * 64,
            threshold=0.3,
            canary_images=8,
            canary_max_abs=1e-7,
        ),
    }
    for step, artifact in made.items():
        artifact.write(doorway.index_uri(config, step))
    return Indexes.read(config)


def benchmark(name: str, accuracy: float) -> BenchmarkResult:
    return BenchmarkResult(
        name=name,
        num_pairs=3000,
        accuracy=accuracy,
        accuracy_std=0.0031,
        threshold=0.3,
        tar_at_far=[TarAtFar(far_target=0.1, tar=0.99), TarAtFar(far_target=0.001, tar=0.93)],
        roc=[],
        pixel_baseline_accuracy=0.71,
    )


def ended(indexes: Indexes, failed: Failure | None = None) -> Outcome:
    return Outcome(
        run_id="r1",
        experiment="tiny",
        seconds=221,
        step_seconds={"train": 151.0, "export": 1.0, "deploy": 4.0},
        indexes=indexes,
        failure=failed,
    )


def test_the_document_holds_the_figures_under_the_promised_names(indexes: Indexes) -> None:
    found = json.loads(json.dumps(outcome.to_document(ended(indexes))))
    assert found == {
        "run_id": "r1",
        "experiment": "tiny",
        "status": "succeeded",
        "seconds": 221,
        "stages": {
            "train": {"seconds": 151.0},
            "export": {"seconds": 1.0},
            "deploy": {"seconds": 4.0},
        },
        "train": {"samples_per_s": 612.3, "ranks": 2, "classes": 40, "steps": 1240},
        "benchmarks": {
            name: {
                "accuracy": accuracy,
                "accuracy_std": 0.0031,
                "tar_at_far": {"0.1": 0.99, "0.001": 0.93},
            }
            for name, accuracy in (("glyph_cross", 0.98), ("glyph_rough", 0.94))
        },
        "export": {"parity_max_abs": 3.1e-7},
        "deploy": {"endpoint": "127.0.0.1:8001", "model": "tiny", "version": 2},
    }


def test_the_document_of_a_run_that_failed_early_says_where_and_why() -> None:
    found = outcome.to_document(ended(Indexes(), Failure("train", "TrainError: rank 1 died", 1)))
    assert found["status"] == "failed"
    assert (found["failed_step"], found["error"]) == ("train", "TrainError: rank 1 died")
    assert found["train"] == found["benchmarks"] == found["export"] == found["deploy"] == {}


@pytest.mark.parametrize("width", [80, 120])
def test_the_summary_tells_what_came_out_and_what_to_type(indexes: Indexes, width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    samples = [Path("samples/U+0416-a.jpg"), Path("samples/U+0416-b.jpg")]
    asked = Request("tiny", "", "", "", Path(".plsc"))
    print_summary(
        console, ended(indexes), request=asked, thresholds={"glyph_cross": 0.95}, samples=samples
    )
    text = console.file.getvalue()
    for expected in (
        "r1 succeeded in 3 min 41 s",
        "612 samples/s",
        "ONNX of 2.1 MB, off by 3.1e-07",
        "tiny, version 2 (was 1), at 127.0.0.1:8001",
        "98.00 ± 0.31",
        "glyph_rough",
        "TAR@0.001",
        "71.00",
        "95.00",
        "96.00",
        "make query IMAGES='samples/U+0416-a.jpg samples/U+0416-b.jpg'",
        "make pipeline-run EXPERIMENT=tiny",
        "make services-down",
    ):
        assert expected in text


def test_why_a_step_failed_is_read_from_the_store(config: PipelineConfig) -> None:
    assert outcome.read_failure(config, "gate") is None
    with pytest.raises(GateFailed), doorway.enter("gate", config):
        raise GateFailed("too weak")
    assert outcome.read_failure(config, "gate") == Failure("gate", "GateFailed: too weak", 4)


def test_only_a_run_with_a_whole_checkpoint_can_be_gone_on_with(config: PipelineConfig) -> None:
    folder = storage.join(config.store_uri, "runs/r1/checkpoints/step-00000010")
    storage.write_bytes(storage.join(folder, "backbone.safetensors"), b"x")
    assert not failure.has_checkpoint(config)
    storage.write_bytes(storage.join(folder, "index.json"), b"{}")
    assert failure.has_checkpoint(config)


def test_commands_repeat_what_was_asked_for_and_no_more() -> None:
    asked = Request("tiny", "train.epochs=2 seed=1", "", "", Path("other"))
    assert asked.run_command(resume_run="r1") == (
        "make pipeline-run STATE_DIR=other EXPERIMENT=tiny"
        " OVERRIDES='train.epochs=2 seed=1' RESUME=r1"
    )
    plain = Request("glyphs", "", "", "", Path(".plsc"))
    assert plain.run_command() == "make pipeline-run"
    assert plain.command("query", IMAGES="a.jpg b.jpg") == "make query IMAGES='a.jpg b.jpg'"


def test_the_end_of_a_log_leaves_out_what_kfp_says_and_keeps_what_counts(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    dump = ["[KFP Executor 1 INFO]: Got executor_input:", "{", '    "inputs": {}', "}"]
    orderly = [
        "[train] begins",
        "[train] TrainError: rank 1 died",
        "Traceback (most recent call last):",
        "x",
    ]
    path.write_text("\n".join(dump + orderly))
    assert failure.last_lines(path) == ["[train] begins", "[train] TrainError: rank 1 died"]
    path.write_text(
        "\n".join([*dump, *(f"line {n}" for n in range(40)), "Traceback (most ...):", "x"])
    )
    assert failure.last_lines(path)[0] == "line 27"
    assert failure.last_lines(path)[-1] == "x"
    assert failure.last_lines(tmp_path / "none.log") == []


def test_sample_data_is_made_only_where_the_experiment_says_and_only_once(
    config: PipelineConfig, tmp_path: Path
) -> None:
    assert sample_data.is_missing(config, "tiny")
    storage.write_bytes(storage.join(config.data_uri, "file_list.txt"), b"")
    assert not sample_data.is_missing(config, "tiny")
    given = f"store_uri={tmp_path}/store", f"data_uri={tmp_path}/misspelt"
    assert not sample_data.is_missing(conf.compose("tiny", "run_id=r", *given), "tiny")


def test_pictures_to_try_are_copied(config: PipelineConfig, tmp_path: Path) -> None:
    for name in ("U+0416-a.jpg", "U+0416-b.jpg", "notes.txt"):
        storage.write_bytes(storage.join(config.data_uri, "samples", name), b"picture")
    found = sample_data.download_samples(config, tmp_path / "samples")
    assert [path.name for path in found] == ["U+0416-a.jpg", "U+0416-b.jpg"]
    assert found[0].read_bytes() == b"picture"
