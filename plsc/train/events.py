"""TensorBoard events: written locally, copied to the store with every checkpoint."""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from plsc import storage

__all__ = ["Events"]


class Events:
    """Scalars over steps, kept under ``uri`` for ``tensorboard --logdir``."""

    def __init__(self, uri: str, *, is_writer: bool) -> None:
        """Open the events of a run; ranks that are no writer keep quiet."""
        self._uri = uri
        self._folder = tempfile.TemporaryDirectory(prefix="plsc-events-")
        self._writer = SummaryWriter(self._folder.name) if is_writer else None

    def add(self, step: int, scalars: dict[str, float]) -> None:
        """Record the scalars of ``step``."""
        if self._writer:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)

    def upload(self) -> None:
        """Copy what is written so far to the store.

        Raises:
            StorageError: If the store refuses.
        """
        if self._writer:
            self._writer.flush()
            for path in Path(self._folder.name).iterdir():
                storage.upload(path, storage.join(self._uri, path.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer:
            self._writer.close()
        self._folder.cleanup()
