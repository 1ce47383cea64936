"""Writing checkpoints while training goes on: a snapshot now, the way to the store behind it."""

import datetime as dt
import functools
import logging
import shutil
import time
from types import TracebackType
from typing import Any, Self, cast

import torch.distributed as dist

from plsc.artifacts.checkpoint import Checkpoint
from plsc.conf.schema import PipelineConfig
from plsc.doorway import Stopwatch
from plsc.errors import StorageError
from plsc.train.checkpoints.scratch import ScratchFolder
from plsc.train.checkpoints.snapshot import LocalFile, take_snapshot
from plsc.train.checkpoints.upload import Upload
from plsc.train.process_group import Ranks
from plsc.train.state import TrainState

__all__ = ["Checkpointer"]

log = logging.getLogger(__name__)

_TIMEOUT = dt.timedelta(hours=2)
"""Longest time that one rank's upload may take more than another's."""

_GRACE_S = 20.0
"""How long a run that ends on an error waits for the checkpoint that is on its way."""


class Checkpointer:
    """Writes the checkpoints of a run; at most one is on its way to the store at any time.

    A context manager. Left without an error it waits for the last checkpoint; left on an error it
    gives that one up when it takes too long (another rank may be gone), and no index of it is
    written then. Local files are removed either way.
    """

    def __init__(self, config: PipelineConfig, ranks: Ranks, watch: Stopwatch) -> None:
        self._config = config
        self._ranks = ranks
        self._watch = watch
        self._group: dist.ProcessGroup | None = None
        self._upload: Upload | None = None
        self._last: Checkpoint | None = None

    def __enter__(self) -> Self:
        """Collective: makes a process group that only the uploading threads use."""
        if self._ranks.world_size > 1:
            group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
            self._group = cast("dist.ProcessGroup", group)
        self._scratch = ScratchFolder()
        return self

    def save(
        self, state: TrainState, *, epoch: int, dataset_uri: str, figures: dict[str, float]
    ) -> None:
        """Take a snapshot of ``state``, and write it as a checkpoint in the background.

        Collective. Waits for the checkpoint before it. ``state`` may be changed afterwards. A
        process killed on the way leaves a folder without an index: no checkpoint.

        Args:
            state: Between two steps.
            epoch: Epochs done.
            dataset_uri: Index of the data set it was trained on.
            figures: Last values; ``accuracy`` only if this very state was verified.

        Raises:
            StorageError: If the checkpoint *before* failed on any rank; raised on every rank.
        """
        self._wait()
        complete = functools.partial(
            Checkpoint,
            provenance=self._watch.provenance(self._config),
            step=state.step,
            epoch=epoch,
            samples_seen=state.step * self._config.train.global_batch_size,
            num_classes=state.head.num_classes,
            embedding_size=self._config.model.embedding_size,
            ranks=self._ranks.world_size,
            dataset_uri=dataset_uri,
            figures=dict(figures),
            loss_scale=state.loss_scale.state() if state.loss_scale else {},
        )
        self._upload = Upload(
            self._snapshot(state),
            state.step,
            complete,
            config=self._config,
            ranks=self._ranks,
            exchange=self._exchange,
        )
        self._upload.start()

    def finish(self) -> Checkpoint | None:
        """Wait for the checkpoint on its way and return the last one, the same on every rank.

        Returns:
            None if none was saved.

        Raises:
            StorageError: If it failed on any rank; raised on every rank.
        """
        self._wait()
        return self._last

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._wait()
            elif self._upload:
                self._wait_a_little(self._upload, is_error=issubclass(kind, Exception))
        finally:
            self._scratch.remove()

    def _snapshot(self, state: TrainState) -> list[LocalFile] | StorageError:
        """Return this rank's files, or the error, which the ranks then tell each other."""
        folder = self._scratch.path / f"step-{state.step}"
        try:
            return take_snapshot(state, folder, with_backbone=self._ranks.is_first)
        except StorageError as error:
            return error

    def _wait(self) -> None:
        upload, self._upload = self._upload, None
        if upload is None:
            return
        begin = time.monotonic()
        try:
            self._last = upload.result()
        finally:
            shutil.rmtree(self._scratch.path / f"step-{upload.step}", ignore_errors=True)
        if (seconds := time.monotonic() - begin) > 1:
            log.info("waited %.1f s for the checkpoint of step %d", seconds, upload.step)

    def _wait_a_little(self, upload: Upload, *, is_error: bool) -> None:
        """Wait while training ends on an error; not at all when a person or a signal ends it."""
        upload.join(_GRACE_S if is_error else 0)
        if upload.is_alive():
            upload.give_up()
            log.warning("the checkpoint of step %d was given up", upload.step)

    def _exchange(self, item: object) -> list[Any]:
        """Return the item of every rank. Collective: one all-gather of the threads' own group."""
        if self._group is None:
            return [item]
        items: list[Any] = [None] * self._ranks.world_size
        dist.all_gather_object(items, item, group=self._group)
        return items
