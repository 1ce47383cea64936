"""The graph: what clients could get wrong is inside, and nothing of the machine that wrote it."""

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import plsc
from plsc.conf.schema import ModelConfig
from plsc.errors import ExportError
from plsc.export import graph
from plsc.models import as_embedder
from tests.samples import settled_backbone, tiny


class Colors(nn.Module):
    """Mean of each channel: an embedding that a person can work out."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


class Branching(nn.Module):
    """Looks at values to decide what to compute: no single graph can."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) if images.sum() > 0 else images.amax(dim=(2, 3))


def run(content: bytes, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["embeddings"], {"images": pixels})[0]


@pytest.fixture(scope="module")
def colors() -> bytes:
    return graph.export(Colors().eval(), image_size=16, opset=20, metadata={"run_id": "r1"})


def test_pixels_are_scaled_and_embeddings_have_length_one(colors):
    pixels = np.zeros((1, 16, 16, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 255, 0, 255
    assert run(colors, pixels)[0] == pytest.approx(np.array([1, -1, 1]) / np.sqrt(3), abs=1e-6)


def test_the_signature_is_that_of_the_artifact(colors):
    session = onnxruntime.InferenceSession(colors, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", [16, 16, 3])
    assert (given.name, given.type, given.shape[1]) == ("embeddings", "tensor(float)", 3)
    assert isinstance(taken.shape[0], str), "the batch is free"
    assert session.get_modelmeta().custom_metadata_map == {"run_id": "r1"}
    assert onnx.load_model_from_string(colors).opset_import[0].version == 20


@pytest.mark.parametrize("batch", [1, 2, 3, 17])
def test_any_batch_size_goes(colors, batch):
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 16, 16, 3), np.uint8)
    together = run(colors, pixels)
    alone = np.concatenate([run(colors, pixels[i : i + 1]) for i in range(batch)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dimensions"),
    [
        ("glyphnet", 128),
        ("iresnet18", 512),
        ("mobilefacenet", 128),
        ("vit_tiny", 128),
    ],
)
def test_the_backbones_export_with_any_batch(tmp_path, name, dimensions):
    config = tiny(tmp_path)
    config.model = ModelConfig(name=name, embedding_size=dimensions, dropout=0.4)
    backbone = settled_backbone(config)
    content = graph.export(backbone, image_size=32, opset=20, metadata={})
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    expected = as_embedder(backbone)(pixels)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for batch in (1, 5):
        np.testing.assert_allclose(run(content, pixels[:batch]), expected[:batch], atol=1e-5)


def test_the_file_holds_no_path_and_no_stack_of_this_machine(colors):
    for trace in (b"stack_trace", str(Path(plsc.__file__).parents[1]).encode(), b"site-packages"):
        assert trace not in colors


def test_exporting_is_silent(capfd, caplog):
    with caplog.at_level(logging.WARNING):
        graph.export(Colors().eval(), image_size=16, opset=20, metadata={})
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_weights_beyond_one_file_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(graph, "MAX_BYTES", 1000)
    with pytest.raises(ExportError, match="one ONNX file holds at most"):
        graph.export(nn.Linear(100, 100), image_size=16, opset=20, metadata={})


def test_a_backbone_that_is_no_graph_is_named(capfd):
    with pytest.raises(ExportError, match="Branching cannot be written as ONNX opset 20"):
        graph.export(Branching().eval(), image_size=16, opset=20, metadata={})
