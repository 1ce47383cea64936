"""Verification while training: every rank embeds its part of a benchmark, rank 0 measures."""

import logging

import numpy as np
import torch

from plsc.conf.schema import PipelineConfig
from plsc.models import as_embedder
from plsc.train.process_group import Ranks
from plsc.train.state import TrainState
from plsc.verification import Benchmark, embed, measure

__all__ = ["verify"]

log = logging.getLogger(__name__)


def verify(state: TrainState, benchmark: Benchmark, config: PipelineConfig, ranks: Ranks) -> float:
    """Return the accuracy of the backbone on ``benchmark``, 0..1; the same on every rank.

    Collective. Rank 0's batch-norm statistics count, as in a checkpoint.

    Raises:
        BenchmarkError: If the benchmark's images do not fit the model.
    """
    for buffer in state.backbone.buffers():
        ranks.broadcast(buffer)
    size = -(-len(benchmark.images) // ranks.world_size)
    own = benchmark.images[ranks.rank * size : (ranks.rank + 1) * size]
    embeddings = np.zeros((size, config.model.embedding_size), np.float32)
    if own:
        embeddings[: len(own)] = embed(
            own,
            as_embedder(state.backbone),
            image_size=config.image_size,
            flip=config.evaluate.flip,
            batch_size=config.evaluate.batch_size,
        )
    gathered = ranks.gather(torch.from_numpy(embeddings).to(ranks.device)).flatten(0, 1).cpu()
    measured = measure(
        gathered.numpy()[: len(benchmark.images)],
        benchmark.is_same,
        folds=config.evaluate.folds,
        far_targets=config.evaluate.far_targets,
    )
    log.info(
        "step %d: %s accuracy %.4f ± %.4f",
        state.step, benchmark.name, measured.accuracy, measured.accuracy_std,
    )  # fmt: skip
    return measured.accuracy
