"""Files that processes share by locks on them, which end with whoever holds them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

__all__ = ["TRY", "is_named", "locked", "removed", "taken"]

TRY = fcntl.LOCK_EX | fcntl.LOCK_NB


def taken(part: Path) -> int | None:
    """Return a descriptor of the temporary file, locked; None if another process has it."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
    with ExitStack() as undone, suppress(BlockingIOError):
        undone.callback(os.close, descriptor)
        fcntl.flock(descriptor, TRY)
        if is_named(part, descriptor):  # else who had it renamed or removed it before the lock
            undone.pop_all()
            return descriptor
    return None


def is_named(path: Path, descriptor: int) -> bool:
    """Return whether the open file is still the one of that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False


def removed(path: Path) -> bool:
    """Remove a file, and return whether it was there and nobody held it."""
    with suppress(OSError), locked(path, TRY) as descriptor:
        if is_named(path, descriptor):  # else another took its place before the lock
            path.unlink()
            return True
    return False


@contextmanager
def locked(path: Path, operation: int) -> Iterator[int]:
    """Hold the lock on an existing file, whose descriptor it gives.

    Raises:
        OSError: If the file is not there, or the lock is not to be had.
    """
    descriptor = os.open(path, os.O_RDWR)  # NFS locks for one alone only what may be written
    try:
        fcntl.flock(descriptor, operation)
        yield descriptor
    finally:
        os.close(descriptor)
