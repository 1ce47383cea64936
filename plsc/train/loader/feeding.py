"""The batches of a rank, step by step: shards ahead of the workers, workers ahead of training."""

import dataclasses
import logging
import resource
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from plsc.artifacts.shards import ShardSet
from plsc.errors import ConfigError
from plsc.train.loader.assembly import Assembly, Plan
from plsc.train.loader.augment import Augment
from plsc.train.loader.cache import ShardCache
from plsc.train.loader.crew import Crew, ProcessCrew, ThreadCrew
from plsc.train.loader.prefetch import Prefetcher

if TYPE_CHECKING:  # workers import this package, and need none of Hydra
    from plsc.conf.schema import PipelineConfig

__all__ = ["Batch", "Loader"]

log = logging.getLogger(__name__)

_SPARE_FILES = 32
_NAMED = 5  # replaced images that the log names; the others are only counted


class Batch(NamedTuple):
    """One rank's part of the global batch of a step."""

    step: int
    images: npt.NDArray[np.uint8]
    """uint8 [B, S, S, 3], RGB; overwritten when the next batch is asked for."""
    labels: npt.NDArray[np.int64]
    """int64 [B], -1 for images that do not count; overwritten likewise."""
    num_replaced: int
    """Images that were damaged, in whose place others stand."""


class Loader:
    """Gives batches of a data set.

    B is the same on every rank, and a multiple of ``train.micro_batches``. What the batches hold is
    a function of data set, configuration, step, rank and number of ranks; the workers, the cache
    and its state do not change them.
    """

    def __init__(
        self, dataset: ShardSet, config: "PipelineConfig", *, rank: int = 0, world_size: int = 1
    ) -> None:
        """Prepare to load; nothing is fetched yet.

        Raises:
            ConfigError: If the cache's limit, or that of open files, is below what has to be at
                hand at once.
            StorageError: If the cache's folder cannot be written, or its files not be locked.
        """
        settings = config.train.loader
        folder = settings.cache_path or str(Path(tempfile.gettempdir()) / "plsc-cache")
        self.dataset = dataset
        self.waited_s = 0.0
        """Seconds in which a batch had to wait for shards."""
        self._workers = settings.workers
        self._num_named = 0
        self._plan = Plan(
            cache_path=folder,
            shard_digests=[shard.sha256 for shard in dataset.shards],
            shard_sizes=[shard.num_samples for shard in dataset.shards],
            image_size=dataset.image_size,
            global_batch_size=config.train.global_batch_size,
            micro_batches=config.train.micro_batches,
            rank=rank,
            world_size=world_size,
            seed=config.seed,
            window_shards=settings.window_shards,
            slots=max(2, settings.workers + 1) + 1,
            augment=Augment(**dataclasses.asdict(config.train.augment)),
        )
        self.sampler = self._plan.sampler()
        self._check_limit(settings.cache_gib, settings.window_shards)
        self._allow_open_files(settings.window_shards)
        self._cache = ShardCache(Path(folder), round(settings.cache_gib * 2**30))

    def batches(
        self, steps: range, stop: threading.Event | None = None
    ) -> Generator[Batch, None, None]:
        """Yield the batch of each of ``steps``, which follow each other.

        Args:
            steps: The steps.
            stop: Set by another thread, it ends the wait for shards that may never come.

        Raises:
            StoppedError: If a batch had to wait when ``stop`` was set.
            StorageError: If a shard cannot be fetched, or the cache has no room for it.
            ShardError: If a shard is not what the index says.
            TrainError: If a worker is gone.
        """
        if not steps:
            return
        crew: Crew = (
            ProcessCrew(self._plan, self._workers) if self._workers else ThreadCrew(self._plan)
        )
        prefetcher = Prefetcher(
            self.dataset, self.sampler, self._cache, steps,
            turn=self._plan.rank / self._plan.world_size, stop=stop or threading.Event(),
        )  # fmt: skip
        with crew, prefetcher:
            submitted, ahead = steps.start, self._plan.slots - 1
            for step in steps:
                while submitted < min(step + ahead, steps.stop):
                    if submitted == step:
                        prefetcher.wait(step)
                    elif not prefetcher.is_ready(submitted):
                        break
                    crew.submit(submitted, submitted % self._plan.slots)
                    submitted += 1
                made = self._result(crew, prefetcher, step)
                self.waited_s = prefetcher.waited_s
                first = self.sampler.windows(step + 1).start
                if first > self.sampler.windows(step).start:
                    crew.forget_before(first)
                    prefetcher.forget_before(first)
                slot = step % self._plan.slots
                images, labels = crew.ring.images[slot], crew.ring.labels[slot]
                yield Batch(step, images, labels, made.num_replaced)

    def _result(self, crew: Crew, prefetcher: Prefetcher, step: int) -> Assembly:
        while (made := crew.result(step)).lost_shard >= 0:
            prefetcher.lost(made.lost_shard)
            prefetcher.wait(step)
            crew.submit(step, step % self._plan.slots)
        for replaced in made.replaced:
            if self._num_named == _NAMED:
                break
            self._num_named += 1
            by = f"row {replaced.by_row}" if replaced.by_row >= 0 else "a grey image, no label:"
            log.warning(
                "row %d of %s cannot be used: %s; %s stands in for it%s",
                replaced.row, self.dataset.shards[replaced.shard].uri, replaced.reason, by,
                "; more of them are only counted" if self._num_named == _NAMED else "",
            )  # fmt: skip
        return made

    def _check_limit(self, cache_gib: float, window_shards: int) -> None:
        sizes = sorted((shard.size_bytes for shard in self.dataset.shards), reverse=True)
        per_window = -(-len(sizes) // self.sampler.num_windows)
        needed_gib = sum(sizes[: self.sampler.windows_at_once * per_window]) / 2**30
        if 0 < cache_gib < needed_gib:
            raise ConfigError(
                f"train.loader.cache_gib={cache_gib:g}, but up to"
                f" {self.sampler.windows_at_once} windows of {per_window} shards have to be at"
                f" hand at once, {needed_gib:.3g} GiB: raise it, or lower"
                f" train.loader.window_shards={window_shards}"
            )

    def _allow_open_files(self, window_shards: int) -> None:
        """Let this process, and the workers that it starts, hold all shards of the windows open."""
        per_window = -(-len(self.dataset.shards) // self.sampler.num_windows)
        for_shards = 2 * self.sampler.windows_at_once * per_window  # locked, and mapped
        needed = for_shards + 1024
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        num_open = len(list(Path("/proc/self/fd").iterdir()))
        if hard != resource.RLIM_INFINITY and hard < for_shards + num_open + _SPARE_FILES:
            raise ConfigError(
                f"train.loader.window_shards={window_shards}: {for_shards} files have to be open"
                f" for the shards, and {num_open} are already, but this process may have no more"
                f" than {hard}: raise its hard limit (ulimit -Hn), or lower the setting"
            )
        if soft != resource.RLIM_INFINITY and soft < needed:
            allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
