"""The export stage from checkpoint to graph."""

import hashlib
import json
import sys
from pathlib import Path

import onnxruntime
import pytest

from plsc import doorway
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.onnx_model import OnnxModel
from plsc.errors import CheckpointError, ExportError
from plsc.export import graph, stage
from plsc.export.__main__ import main
from plsc.export.step import run_step


def corrupt(config) -> None:
    path = Path(Checkpoint.read(config.export.checkpoint_uri).backbone.uri)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def test_the_graph_lies_in_the_store_and_says_where_it_comes_from(config):
    model = stage.run(config)
    assert OnnxModel.read(doorway.index_uri(config, "export")) == model
    assert model.graph.uri == f"{config.store_uri}/runs/test-run/export/model.onnx"
    content = Path(model.graph.uri).read_bytes()
    assert hashlib.sha256(content).hexdigest() == model.graph.sha256
    assert len(content) == model.graph.size_bytes
    assert (model.opset, model.image_size, model.embedding_size) == (20, 32, 128)
    assert model.parity_max_abs <= 1e-5
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    assert told["run_id"] == "test-run"
    assert told["experiment"] == "tiny"
    assert told["checkpoint_step"] == "24"
    assert (told["image_size"], told["embedding_size"]) == ("32", "128")
    assert len(told["config_sha256"]) == 64
    assert json.loads(told["thresholds"]) == config.evaluate.thresholds
    assert json.loads(told["figures"])["accuracy_glyph_cross"] == 0.75
    assert told["plsc_version"]


def test_a_flipped_bit_in_the_checkpoint_is_an_error_and_leaves_nothing(config):
    corrupt(config)
    with pytest.raises(CheckpointError, match="altered") as caught:
        stage.run(config)
    assert caught.value.exit_code == 3
    assert not Path(f"{config.store_uri}/runs/test-run/export").exists()


def test_a_graph_without_parity_is_not_stored(config, monkeypatch):
    forward = graph.Endpoint.forward
    monkeypatch.setattr(graph.Endpoint, "forward", lambda self, images: -forward(self, images))
    with pytest.raises(ExportError, match="differ from the torch model's"):
        stage.run(config)
    assert not Path(f"{config.store_uri}/runs/test-run/export").exists()


def test_the_command_ends_with_code_3_on_a_corrupted_checkpoint(config, monkeypatch, capsys):
    corrupt(config)
    places = [f"store_uri={config.store_uri}", f"data_uri={config.data_uri}", "run_id=test-run"]
    monkeypatch.setattr(sys, "argv", ["plsc.export", "experiment=tiny", *places])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 3
    assert "CheckpointError" in capsys.readouterr().out


def test_the_step_hands_on_the_index_and_fills_the_metadata(config, tmp_path):
    metadata: dict[str, object] = {}
    model_path = Path(config.export.checkpoint_uri).rename(tmp_path / "model")
    run_step(
        "tiny",
        f"store_uri={config.store_uri}",
        config.data_uri,
        "test-run",
        model_path=str(model_path),
        onnx_path=str(tmp_path / "onnx"),
        metadata=metadata,
    )
    model = OnnxModel.read(str(tmp_path / "onnx"))
    assert metadata["uri"] == model.graph.uri
    assert metadata["sha256"] == model.graph.sha256
    assert metadata["embedding_size"] == 128
    assert 0 <= metadata["parity_max_abs"] <= 1e-4
    json.dumps(metadata, allow_nan=False)
