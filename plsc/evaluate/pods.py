"""Embedding on a cluster: an Indexed Job embeds the benchmarks share by share, the step gathers."""

import logging
import math
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pydantic

from plsc import storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.cluster.indexed_job import SharedWork, run_shared
from plsc.cluster.pods import whole_processors
from plsc.conf.schema import PipelineConfig, PodsConfig
from plsc.evaluate.shares import Shares, Version
from plsc.verification import Benchmark, benchmark_uri

__all__ = ["embedded"]

log = logging.getLogger(__name__)

_MODEL_MIB = 2048
"""What a pod has besides the benchmark: torch, the model, and a batch."""


@contextmanager
def embedded(
    config: PipelineConfig, checkpoint: Checkpoint
) -> Iterator[Callable[[Benchmark], npt.NDArray[np.float32]]]:
    """Have all benchmarks embedded, and give what returns the embeddings of each.

    What pods have written is kept until the end of the block, or for a run that comes back.

    Raises:
        PlscError: What a pod raised.
        ClusterError: If the pods cannot be had, or fail.
        StorageError: If the store does not give or take what it should.
    """
    shares = _begun(config, checkpoint)
    log.info("embed: an Indexed Job of %d pods", shares.num_pods)
    run_shared(_work(config, shares), on_tick=lambda: None)
    yield lambda benchmark: shares.gather(benchmark.name, len(benchmark.images))
    storage.delete_prefix(shares.folder_uri)


def _begun(config: PipelineConfig, checkpoint: Checkpoint) -> Shares:
    """Write what pods need to know, unless an earlier attempt did."""
    settings = config.evaluate
    uris = {name: benchmark_uri(config.data_uri, name) for name in settings.benchmarks}
    shares = Shares(
        folder_uri=storage.join(config.store_uri, "runs", config.run_id, "evaluate", "embeddings"),
        checkpoint=checkpoint.to_json().decode(),
        data_uri=config.data_uri,
        benchmarks={name: Version.of(uri) for name, uri in uris.items()},
        flip=settings.flip,
        batch_size=settings.batch_size,
        num_pods=settings.pods.count,
        attempt=uuid.uuid4().hex[:12],
    )
    if storage.exists(shares.uri):
        try:
            begun = Shares.model_validate_json(storage.read_bytes(shares.uri))
        except pydantic.ValidationError:
            log.warning("%s was altered: embedding begins again", shares.uri)
        else:
            if begun == shares.model_copy(update={"attempt": begun.attempt}):
                return begun
    storage.delete_prefix(shares.folder_uri)
    storage.write_bytes(shares.uri, shares.model_dump_json().encode())
    return shares


def _work(config: PipelineConfig, shares: Shares) -> SharedWork:
    pods = _sized(config.evaluate.pods, shares)
    return SharedWork(
        step="evaluate",
        part="embed",
        run_id=config.run_id,
        attempt=shares.attempt,
        pods=pods,
        count=shares.num_pods,
        command=["python", "-m", "plsc.evaluate.pod", shares.uri],
        work_uri=shares.folder_uri,
        report_uri=storage.join(
            config.store_uri, "runs", config.run_id, "evaluate", "embed-pods.txt"
        ),
        # Without a limit a pod sees all processors of its node; torch heeds this.
        environment={"OMP_NUM_THREADS": str(whole_processors(pods.cpu))},
    )


def _sized(pods: PodsConfig, shares: Shares) -> PodsConfig:
    """Return ``pods`` with what embedding needs, where nothing is asked for."""
    largest = max((one.size_bytes for one in shares.benchmarks.values()), default=0)
    mib = _MODEL_MIB + math.ceil(3 * largest / 2**20)  # the file, its images, and room
    return replace(pods, cpu=pods.cpu or "2", memory=pods.memory or f"{mib}Mi")
