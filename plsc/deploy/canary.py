"""Canary: what the endpoint answers must be what the exported graph computes."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from plsc import storage
from plsc.artifacts.onnx_model import INPUT_NAME, OUTPUT_NAME, OnnxModel
from plsc.client import GrpcTransport, ServedModel
from plsc.conf.schema import PipelineConfig
from plsc.deploy.repository import MAX_BATCH_SIZE
from plsc.errors import DeployError, ServingError
from plsc.transforms import decode_resized
from plsc.verification import benchmark_uri, read_benchmark

__all__ = ["Canary"]

log = logging.getLogger(__name__)

_NUM_GENERATED = 16
_NUM_REAL = 32


@dataclass(frozen=True)
class Canary:
    """A fixed set of images, and the embeddings that the graph gives for them in this process."""

    images: npt.NDArray[np.uint8]
    """[n, size, size, 3]."""
    expected: npt.NDArray[np.float32]
    """[n, D]."""
    tolerance: float
    """Largest absolute difference allowed."""

    @classmethod
    def prepare(cls, config: PipelineConfig, model: OnnxModel, graph_path: Path) -> "Canary":
        """Return the canary for a graph.

        Raises:
            DeployError: If the graph does not run, or gives something else than its index says.
            StorageError, BenchmarkError: If a benchmark is there but cannot be read.
        """
        images = np.concatenate([_generated(model.image_size), _real(config, model.image_size)])
        expected = _compute(graph_path, images)
        if expected.shape != (len(images), model.embedding_size) or expected.dtype != np.float32:
            raise DeployError(
                f"{model.graph.uri} should give float32 [n, {model.embedding_size}],"
                f" gives {expected.dtype} {list(expected.shape)} for {len(images)}: export it again"
            )
        return cls(images, expected, config.deploy.canary_tolerance)

    def check(self, transport: GrpcTransport, name: str, version: int) -> float:
        """Compare what the endpoint gives to clients now; return the largest absolute difference.

        The images go one alone and then in batches up to the largest that is allowed.

        Raises:
            DeployError: If it differs by more than the tolerance, or another version answers, or
                none does.
        """
        try:
            served = transport.describe(name)
            answers = [self._ask(transport, served, part) for part in self._parts()]
        except ServingError as error:
            raise DeployError(f"canary: {error}") from error
        found = {answered for _, answered in answers}
        if found != {str(version)}:
            raise DeployError(
                f"canary: expected version {version} of {name!r} to answer, found {sorted(found)}"
            )
        gap = max(difference for difference, _ in answers)
        if not gap <= self.tolerance:
            raise DeployError(
                f"canary: embeddings of {name!r}, version {version}, differ from the graph's by"
                f" up to {gap:.1e}, more than deploy.canary_tolerance={self.tolerance:g}:"
                " the server computes another graph, or the same with another arithmetic"
            )
        return gap

    def _parts(self) -> list[slice]:
        starts = range(0, len(self.images), MAX_BATCH_SIZE)
        return [slice(0, 1), *(slice(start, start + MAX_BATCH_SIZE) for start in starts)]

    def _ask(self, transport: GrpcTransport, served: ServedModel, part: slice) -> tuple[float, str]:
        embeddings, version = transport.infer(served, self.images[part])
        expected = self.expected[part]
        if embeddings.shape != expected.shape:
            return float("inf"), version
        return float(np.max(np.abs(embeddings - expected))), version


def _generated(image_size: int) -> npt.NDArray[np.uint8]:
    """Return noise, and noise with black, white and gray in between: the whole range of pixels."""
    shape = (_NUM_GENERATED, image_size, image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images[1], images[2], images[3] = 0, 255, 127
    return images


def _real(config: PipelineConfig, image_size: int) -> npt.NDArray[np.uint8]:
    """Return images of the first benchmark that lies in ``config.data_uri``, if there is one."""
    for name in config.evaluate.benchmarks:
        if storage.exists(benchmark_uri(config.data_uri, name)):
            contents = read_benchmark(config.data_uri, name).images[:_NUM_REAL]
            pixels = [decode_resized(content, image_size) for content in contents]
            return np.array(pixels, dtype=np.uint8).reshape(-1, image_size, image_size, 3)
    log.info("no benchmark in %s: the canary sends generated images alone", config.data_uri)
    return np.empty((0, image_size, image_size, 3), np.uint8)


def _compute(graph_path: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    try:
        session = onnxruntime.InferenceSession(str(graph_path), providers=["CPUExecutionProvider"])
        (embeddings,) = session.run([OUTPUT_NAME], {INPUT_NAME: images})
    except Exception as error:  # onnxruntime's own errors share no base class but Exception
        raise DeployError(
            f"onnxruntime does not run the graph: {error}: export it again"
        ) from error
    found: npt.NDArray[np.float32] = embeddings
    return found
