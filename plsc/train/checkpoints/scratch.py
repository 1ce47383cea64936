"""A temporary folder that does not stay when its process is killed.

What SIGKILL leaves behind can be as large as a head, ten times over on a machine that is taken away
ten times. So every process holds a lock on its folder, which ends with the process, and removes
folders that nobody holds when it makes its own: whoever's they were.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["ScratchFolder"]

_PREFIX = "plsc-scratch-"


class ScratchFolder:
    """An empty folder below ``TMPDIR``, at ``path``; it is removed by ``remove``."""

    def __init__(self) -> None:
        for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with suppress(OSError):  # held by another process, or just gone
                lock = _lock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            with suppress(FileNotFoundError):
                self._lock = _lock(self.path, fcntl.LOCK_EX)
                if self.path.exists():  # another process may have removed it before it was locked
                    return

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _lock(folder: Path, operation: int) -> int:
    """Return a descriptor of ``folder`` with the lock on it.

    Raises:
        OSError: If the folder is not there, or the lock is not to be had.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
