"""The embeddings of the benchmarks' images: computed in this process, or by pods of a cluster."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from plsc.artifacts.checkpoint import Checkpoint
from plsc.cluster.requirement import check_pods
from plsc.conf.schema import PipelineConfig
from plsc.models import as_embedder, restore
from plsc.verification import Benchmark, embed

__all__ = ["Embedding", "begun"]


class Embedding:
    """Embeds benchmarks, and counts images and time."""

    def __init__(self, work: Callable[[Benchmark], npt.NDArray[np.float32]]) -> None:
        """Take what embeds the images of a benchmark."""
        self._work = work
        self._num_images = 0
        self.seconds = 0.0
        """Time that embedding took so far."""

    @property
    def images_per_s(self) -> float:
        """Images embedded in a second."""
        return self._num_images / max(self.seconds, 1e-9)

    def embed(self, benchmark: Benchmark) -> npt.NDArray[np.float32]:
        """Return the embeddings of all images of ``benchmark``, [2n, D], of length 1.

        Raises:
            BenchmarkError: As ``plsc.verification.embed`` does.
        """
        start = time.monotonic()
        embeddings = self._work(benchmark)
        self.seconds += time.monotonic() - start
        self._num_images += len(benchmark.images)
        return embeddings


@contextmanager
def begun(config: PipelineConfig, checkpoint: Checkpoint) -> Iterator[Embedding]:
    """Within the block, benchmarks can be embedded with the model of ``checkpoint``.

    Raises:
        CheckpointError: If the checkpoint was altered or does not fit its model.
        ConfigError: If ``evaluate.pods`` are asked for where there is no cluster.
        ClusterError: If those pods cannot be had, or fail.
    """
    if config.evaluate.pods.count:
        check_pods("evaluate", config.evaluate.pods)
        from plsc.evaluate import pods  # noqa: PLC0415  it needs kubernetes

        start = time.monotonic()
        with pods.embedded(config, checkpoint) as gathered:
            embedding = Embedding(gathered)
            embedding.seconds = time.monotonic() - start
            yield embedding
        return
    embedder = as_embedder(restore(checkpoint))
    yield Embedding(
        lambda benchmark: embed(
            benchmark.images,
            embedder,
            image_size=int(checkpoint.provenance.config["image_size"]),
            flip=config.evaluate.flip,
            batch_size=config.evaluate.batch_size,
            name=benchmark.name,
        )
    )
