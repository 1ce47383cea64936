"""Parity: the exported graph must give the embeddings of the torch model, alone and in batches."""

import logging
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime
from torch import nn

from plsc import storage
from plsc.artifacts.onnx_model import INPUT_NAME, OUTPUT_NAME
from plsc.conf.schema import PipelineConfig
from plsc.errors import BenchmarkError, ExportError
from plsc.models import as_embedder
from plsc.transforms import NotAnImageError, decode_resized
from plsc.verification import benchmark_uri, read_benchmark

__all__ = ["check", "images"]

log = logging.getLogger(__name__)

_Images: TypeAlias = npt.NDArray[np.uint8]
_Embeddings: TypeAlias = npt.NDArray[np.float32]

_LENGTH_TOLERANCE = 1e-3


def images(config: PipelineConfig, image_size: int) -> _Images:
    """Return ``config.export.parity_images`` images, uint8 [n, image_size, image_size, 3].

    Half of them come from the first benchmark that lies in ``config.data_uri``, the rest is noise:
    real pictures reach the values that matter, noise reaches the pixels' whole range. Without a
    benchmark all are noise.

    Raises:
        StorageError, BenchmarkError: If a benchmark is there but cannot be read.
    """
    wanted = config.export.parity_images
    real = _real_images(config, wanted // 2, image_size)
    noise_shape = (wanted - len(real), image_size, image_size, 3)
    noise = np.random.default_rng(config.seed).integers(0, 256, noise_shape, dtype=np.uint8)
    return np.concatenate([real, noise])


def _real_images(config: PipelineConfig, count: int, image_size: int) -> _Images:
    for name in config.evaluate.benchmarks:
        if storage.exists(benchmark_uri(config.data_uri, name)):
            contents = read_benchmark(config.data_uri, name).images[:count]
            try:
                pixels = [decode_resized(content, image_size) for content in contents]
            except NotAnImageError as error:
                raise BenchmarkError(f"{name}: {error}: replace the benchmark's file") from error
            return np.array(pixels, dtype=np.uint8).reshape(-1, image_size, image_size, 3)
    log.info("no benchmark in %s: parity is measured on noise alone", config.data_uri)
    return np.empty((0, image_size, image_size, 3), np.uint8)


def check(backbone: nn.Module, graph_path: Path, pixels: _Images, *, tolerance: float) -> float:
    """Return the largest absolute difference between the graph's and the backbone's embeddings.

    The torch side scales and normalizes by other code than the graph: a mistake in either shows.

    Args:
        backbone: The model, float32 [n, 3, size, size] -> [n, D].
        graph_path: The exported file.
        pixels: uint8 [n, size, size, 3], n >= 1.
        tolerance: Largest difference allowed.

    Raises:
        ExportError: If the difference is larger or no number, or embeddings lack length 1.
    """
    expected = _normalized(as_embedder(backbone)(pixels))
    _check_length(expected, "the torch model's")
    session = _session(graph_path)
    alone, together = _run(session, pixels[:1]), _run(session, pixels)
    _check_length(together, "the graph's")
    gap = max(_difference(alone, expected[:1]), _difference(together, expected))
    if not gap <= tolerance:
        raise ExportError(
            f"the graph's embeddings differ from the torch model's by up to {gap:.2e} on"
            f" {len(pixels)} images, more than export.parity_tolerance={tolerance:.0e}:"
            " try another export.opset, or report the backbone"
        )
    return gap


def _normalized(embeddings: _Embeddings) -> _Embeddings:
    """Return embeddings of length 1; those of length 0 become NaN, and are found as such."""
    wide = embeddings.astype(np.float64)
    with np.errstate(invalid="ignore"):
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    normalized: _Embeddings = wide.astype(np.float32)
    return normalized


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, pixels: _Images) -> _Embeddings:
    (embeddings,) = session.run([OUTPUT_NAME], {INPUT_NAME: pixels})
    found: _Embeddings = embeddings
    return found


def _check_length(embeddings: _Embeddings, whose: str) -> None:
    off = np.abs(np.linalg.norm(embeddings, axis=1) - 1)
    if not np.all(off <= _LENGTH_TOLERANCE):
        raise ExportError(
            f"{whose} embeddings should have length 1, but are off by up to {np.max(off):.2e}:"
            " the checkpoint holds zeros, overflows or is no longer finite; export an earlier one"
        )


def _difference(found: _Embeddings, expected: _Embeddings) -> float:
    if found.shape != expected.shape:
        raise ExportError(
            f"the graph gives embeddings of shape {found.shape}, the torch model {expected.shape}"
        )
    return float(np.max(np.abs(found - expected)))
