"""The train stage, as every rank runs it: shards in, checkpoints out."""

import logging
from contextlib import AbstractContextManager, nullcontext

from plsc import storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.shards import ShardSet
from plsc.conf.schema import PipelineConfig
from plsc.doorway import Stopwatch, index_uri
from plsc.errors import ConfigError
from plsc.train import lease
from plsc.train.checkpoints import Checkpointer, finetune, resume
from plsc.train.events import Events
from plsc.train.loader import Loader
from plsc.train.loop import Loop
from plsc.train.process_group import Ranks, joined
from plsc.train.state import TrainState
from plsc.train.stopping import Reason, Stopped, Stopping
from plsc.verification import read_benchmark

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(config: PipelineConfig) -> Checkpoint:
    """Train to the end of the plan and return the last checkpoint; its index is the stage's.

    Runs on every rank that torchrun started, or alone. Goes on from the newest checkpoint of this
    run if there is one, else from that of ``train.resume_run``. Stops early, with a checkpoint, on
    SIGTERM, and on a cluster when the step that started the ranks is gone.

    Raises:
        Stopped: If it stopped early; no error, and it ends the process.
        ConfigError, StorageError, ShardError, BenchmarkError, CheckpointError, TrainError.
    """
    watch = Stopwatch()
    with joined(config.train.threads_per_rank) as ranks:
        _end_if_unwanted(config, ranks)
        dataset = ShardSet.read(config.train.dataset_uri)
        _check_dataset(config, dataset)
        loader = Loader(dataset, config, rank=ranks.rank, world_size=ranks.world_size)
        state = TrainState.fresh(config, dataset.num_classes, ranks)
        resumed = resume(state, config)
        if config.train.finetune_from and not resumed:
            finetune(state, config)
        names = config.train.verify_benchmarks if config.train.verify_every_epochs else []
        benchmarks = [read_benchmark(config.data_uri, name) for name in names]
        loop = Loop(state, loader, benchmarks, config, ranks)
        loop.figures |= resumed.figures if resumed else {}
        log.info(
            "%d samples of %d classes, %d rank(s), %d steps of %d samples",
            dataset.num_samples, dataset.num_classes, ranks.world_size, loop.plan.total_steps,
            config.train.global_batch_size,
        )  # fmt: skip
        uri = storage.join(index_uri(config, "train").removesuffix("index.json"), "events")
        with (
            Stopping(ranks) as stopping,
            _lease_watched(config, ranks, stopping),
            Events(uri, is_writer=ranks.is_first) as events,
            Checkpointer(config, ranks, watch) as checkpointer,
        ):
            loop.run(checkpointer, events, resumed, stopping)
            checkpoint = checkpointer.finish() or resumed
        stopping.end_if_agreed(state.step)
        assert checkpoint is not None
        if ranks.is_first:
            checkpoint.write(index_uri(config, "train"))
        ranks.wait()
        return checkpoint


def _end_if_unwanted(config: PipelineConfig, ranks: Ranks) -> None:
    """End all ranks, without an error, if nobody waits for them. Collective.

    An error would have them started again, for ever.
    """
    is_wanted = not ranks.is_first or lease.is_held(config.train.lease_s)
    if not all(ranks.gather_objects(is_wanted)):
        raise Stopped(0)


def _lease_watched(
    config: PipelineConfig, ranks: Ranks, stopping: Stopping
) -> AbstractContextManager[None]:
    """Have rank 0 look after the lease; what it finds, it tells the others by ``stopping``."""
    if not ranks.is_first:
        return nullcontext()
    return lease.watched(config.train.lease_s, lambda: stopping.ask(Reason.LEASE))


def _check_dataset(config: PipelineConfig, dataset: ShardSet) -> None:
    if dataset.image_size != config.image_size:
        raise ConfigError(
            f"image_size={config.image_size}, but {dataset.uri} holds images of"
            f" {dataset.image_size} pixels: set image_size={dataset.image_size}"
        )
