"""A snapshot's way to the store, in a thread of its own on every rank.

The threads agree through ``exchange`` alone, three times: that all can begin, that all files are in
the store, and that the index is written. What fails on one rank therefore fails on all of them, and
there is no index without all files.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from plsc import storage
from plsc.artifacts.checkpoint import Checkpoint, HeadBlock
from plsc.artifacts.index import Payload
from plsc.conf.schema import PipelineConfig
from plsc.errors import PlscError, StorageError
from plsc.train.checkpoints.retention import checkpoint_folder, prune, remove
from plsc.train.checkpoints.snapshot import LocalFile
from plsc.train.process_group import Ranks

__all__ = ["Upload"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Upload(threading.Thread):
    """Brings one checkpoint to the store; ``result`` tells what became of it.

    A daemon: a process that ends on an error does not wait for it.
    """

    def __init__(
        self,
        snapshot: Sequence[LocalFile] | StorageError,
        step: int,
        complete: Callable[..., Checkpoint],
        *,
        config: PipelineConfig,
        ranks: Ranks,
        exchange: Callable[[object], list[Any]],
    ) -> None:
        """Take over a snapshot.

        Args:
            snapshot: This rank's files, or why there are none. The files are removed one by one.
            step: The checkpoint's step.
            complete: Returns the index, given ``backbone`` and ``head``.
            config: The configuration.
            ranks: The ranks.
            exchange: Returns the item of every rank, in rank order; collective, used by this thread
                alone.
        """
        super().__init__(name=f"checkpoint-{step}", daemon=True)
        self.step = step
        self._snapshot = snapshot
        self._complete = complete
        self._config = config
        self._ranks = ranks
        self._exchange = exchange
        self._folder = checkpoint_folder(config, step)
        self._is_given_up = threading.Event()
        self._checkpoint: Checkpoint | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        """Upload, agree, write the index, agree, prune; rank 0 does what is done once."""
        try:
            self._agree(self._begin)
            payloads = [p for payloads in self._agree(self._send) for p in payloads]
            self._checkpoint = self._agree(lambda: self._commit(payloads))[0]
            log.info("checkpoint of step %d: %s", self.step, self._folder)
        except Exception as error:  # noqa: BLE001  told by result(), in the thread that asks
            self._error = error

    def give_up(self) -> None:
        """Let it end at the next file; no index will be written that is not written yet."""
        self._is_given_up.set()

    def result(self) -> Checkpoint:
        """Wait, and return the checkpoint, the same on every rank.

        Raises:
            StorageError: If anything failed on any rank; names it.
            RuntimeError: If another rank went away.
        """
        self.join()
        if self._error:
            raise self._error
        assert self._checkpoint is not None
        return self._checkpoint

    def _begin(self) -> None:
        if isinstance(self._snapshot, StorageError):
            raise self._snapshot
        if self._ranks.is_first:
            remove(self._folder)  # left by a process that was killed, or by a course given up

    def _send(self) -> list[Payload]:
        assert not isinstance(self._snapshot, StorageError)
        return [self._send_file(file) for file in self._snapshot]

    def _send_file(self, file: LocalFile) -> Payload:
        self._check_wanted()
        payload = Payload(
            uri=storage.join(self._folder, file.path.name),
            size_bytes=file.path.stat().st_size,
            sha256=storage.sha256_of_file(file.path),
        )
        storage.upload(file.path, payload.uri)
        file.path.unlink()
        if file.classes is None:
            return payload
        first, number = file.classes.start, len(file.classes)
        return HeadBlock(**dict(payload), first_class=first, num_classes=number)

    def _commit(self, payloads: list[Payload]) -> Checkpoint | None:
        if not self._ranks.is_first:
            return None
        self._check_wanted()
        head = [payload for payload in payloads if isinstance(payload, HeadBlock)]
        (backbone,) = (payload for payload in payloads if not isinstance(payload, HeadBlock))
        checkpoint = self._complete(backbone=backbone, head=head)
        checkpoint.write(checkpoint.index_uri)
        prune(self._config, self.step)
        return checkpoint

    def _check_wanted(self) -> None:
        if self._is_given_up.is_set():
            raise StorageError("training ended before it was in the store")

    def _agree(self, work: Callable[[], _T]) -> list[_T]:
        """Do ``work`` and return what it gave on every rank, or raise what any rank met."""
        item: _T | None = None
        trouble = ""
        try:
            item = work()
        except PlscError as error:
            trouble = str(error)
        except Exception as error:
            log.exception("unexpected %s", type(error).__name__)
            trouble = f"{type(error).__name__}: {error}"
        outcomes = self._exchange((item, trouble))
        troubles = [f"rank {rank}: {told}" for rank, (_, told) in enumerate(outcomes) if told]
        if troubles:
            raise StorageError(f"checkpoint of step {self.step} failed: {'; '.join(troubles)}")
        return [item for item, _ in outcomes]
