"""Parity finds a graph that computes something else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from plsc.errors import BenchmarkError, ExportError
from plsc.export import graph, parity
from plsc.transforms import decode
from plsc.verification import read_benchmark
from tests.samples import settled_backbone, tiny, write_benchmarks


class Dead(nn.Module):
    """Gives the same number for every image and dimension."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) * 0 + self.value


def exported(backbone: nn.Module, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(graph.export(backbone, image_size=32, opset=20, metadata={}))
    return path


@pytest.fixture
def pixels(tmp_path) -> np.ndarray:
    return parity.images(tiny(tmp_path), 32)


def test_the_exported_graph_agrees(tmp_path, pixels):
    backbone = settled_backbone(tiny(tmp_path))
    gap = parity.check(backbone, exported(backbone, tmp_path), pixels, tolerance=1e-4)
    assert 0 <= gap <= 1e-5


def test_another_scaling_of_pixels_is_found(tmp_path, pixels, monkeypatch):
    def wrong(self: graph.Endpoint, images: torch.Tensor) -> torch.Tensor:
        scaled = (images.to(torch.float32) - 127.5) / 255
        return nn.functional.normalize(self.backbone(scaled.permute(0, 3, 1, 2)))

    monkeypatch.setattr(graph.Endpoint, "forward", wrong)
    backbone = settled_backbone(tiny(tmp_path))
    with pytest.raises(ExportError, match=r"differ from the torch model's by up to \d") as caught:
        parity.check(backbone, exported(backbone, tmp_path), pixels, tolerance=1e-4)
    assert "export.parity_tolerance=1e-04" in str(caught.value)


def test_a_graph_that_does_not_normalize_is_found(tmp_path, pixels, monkeypatch):
    def wrong(self: graph.Endpoint, images: torch.Tensor) -> torch.Tensor:
        scaled = (images.to(torch.float32) - 127.5) / 127.5
        return self.backbone(scaled.permute(0, 3, 1, 2))

    monkeypatch.setattr(graph.Endpoint, "forward", wrong)
    backbone = settled_backbone(tiny(tmp_path))
    with pytest.raises(ExportError, match="the graph's embeddings should have length 1"):
        parity.check(backbone, exported(backbone, tmp_path), pixels, tolerance=1e-4)


@pytest.mark.parametrize("value", [0.0, float("nan"), 1e30])
def test_embeddings_without_direction_are_refused(tmp_path, pixels, value):
    backbone = Dead(value).eval()
    with pytest.raises(ExportError, match="should have length 1"):
        parity.check(backbone, exported(backbone, tmp_path), pixels, tolerance=1e-4)


def test_half_of_the_images_are_real_when_there_is_a_benchmark(tmp_path):
    config = tiny(tmp_path, "export.parity_images=7")
    write_benchmarks(config)
    pixels = parity.images(config, 32)
    assert (pixels.shape, pixels.dtype) == ((7, 32, 32, 3), np.uint8)
    contents = read_benchmark(config.data_uri, "glyph_cross").images[:3]
    for shown, content in zip(pixels, contents, strict=False):
        np.testing.assert_array_equal(shown, decode(content))


def test_without_a_benchmark_all_images_are_noise_and_the_same_each_time(tmp_path):
    config = tiny(tmp_path, "export.parity_images=5")
    first, second = parity.images(config, 32), parity.images(config, 32)
    assert first.shape == (5, 32, 32, 3)
    np.testing.assert_array_equal(first, second)


def test_a_damaged_benchmark_is_named(tmp_path):
    config = tiny(tmp_path)
    write_benchmarks(config)
    path = Path(f"{config.data_uri}/glyph_cross.bin")
    path.write_bytes(path.read_bytes().replace(b"\xff\xd8\xff", b"not"))
    with pytest.raises(BenchmarkError, match="glyph_cross"):
        parity.images(config, 32)
