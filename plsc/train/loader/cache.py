"""A bounded folder of shards on this machine, shared by all processes that train on it.

A file gets its name, ``<sha256>.arrow``, only when its digest was checked. Until then it is
``.<sha256>.part``, and whoever holds the lock on that file is the one who fetches; locks end with
their process, so what a killed one left behind can be told, and is removed. Who uses a shard holds
a shared lock on it, and only what nobody holds is ever removed to make room: nothing here depends
on when anything happens, and a file that is missing after all is fetched again.
"""

import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from plsc import storage
from plsc.artifacts.shards import Shard
from plsc.errors import ShardError, StorageError

__all__ = ["HeldShard", "NoRoomError", "ShardCache", "StoppedError"]

log = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class NoRoomError(Exception):
    """All of the room is in use; ``is_limit`` tells the cache's own limit from that of the disk."""

    def __init__(self, reason: str, *, is_limit: bool) -> None:
        super().__init__(reason)
        self.is_limit = is_limit


class StoppedError(Exception):
    """The caller did not want to go on."""


class HeldShard:
    """A shard on this disk, of checked content, that stays until it is released."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def path(self) -> Path:
        """The file, in this process, whatever becomes of its name."""
        return Path(f"/proc/self/fd/{self._descriptor}")

    def release(self) -> None:
        """Let others remove it."""
        os.close(self._descriptor)


class ShardCache:
    """The shards below ``folder``, at most ``limit_bytes`` of them (0: what the disk bears)."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Make the folder if need be, and remove what killed processes left half-written.

        Raises:
            StorageError: If the folder cannot be written.
        """
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._lock_path = folder / ".lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock_path.touch()
            # By the file system's own clock: what is younger was checked by a process of today.
            self._since_ns = self._lock_path.stat().st_mtime_ns
        except OSError as error:
            raise StorageError(
                f"{folder}: shards cannot be kept there: {error.strerror}:"
                " set train.loader.cache_path to a folder that may be written"
            ) from error
        for part in folder.glob(".*.part"):
            with suppress(OSError), _locked(part, fcntl.LOCK_EX | fcntl.LOCK_NB):
                part.unlink()

    def held(self, shard: Shard) -> HeldShard | None:
        """Return ``shard`` if it lies here, held; its digest is checked if that is still to do.

        None if it does not, or no longer has the content that the index says (then it is removed).
        """
        path = self.folder / f"{shard.sha256}.arrow"
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            is_good = _is_named(path, descriptor) and self._is_checked(path, descriptor, shard)
        except BlockingIOError:  # it is just being removed
            is_good = False
        if not is_good:
            os.close(descriptor)
            return None
        return HeldShard(descriptor)

    def fetched(
        self,
        shard: Shard,
        order: Callable[[], Sequence[str]],
        *,
        is_stopped: Callable[[], bool],
        is_limited: bool = True,
    ) -> HeldShard | None:
        """Fetch ``shard`` and return it held; None if another process is just doing that.

        Args:
            shard: What to fetch.
            order: Gives the digests that will be needed, soonest first: others go first when there
                is too little room, then those at the end.
            is_stopped: Asked now and then.
            is_limited: False goes beyond the limit rather than not at all.

        Raises:
            NoRoomError: If all that could make room is in use.
            StorageError: If it cannot be fetched or written.
            ShardError: If what the store holds is not what the index says.
            StoppedError: If ``is_stopped``.
        """
        part = self.folder / f".{shard.sha256}.part"
        path = self.folder / f"{shard.sha256}.arrow"
        descriptor = _taken(part)
        if descriptor is None:
            return None
        try:
            if not path.exists():
                self._reserve(descriptor, shard, order, is_limited=is_limited)
                _copy(shard, descriptor, is_stopped)
                part.rename(path)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                return HeldShard(os.dup(descriptor))
        finally:
            if _is_named(part, descriptor):
                part.unlink()
            os.close(descriptor)
        return self.held(shard)

    def _is_checked(self, path: Path, descriptor: int, shard: Shard) -> bool:
        status = os.fstat(descriptor)
        is_own = status.st_uid == os.geteuid() and status.st_size == shard.size_bytes
        if is_own and status.st_mtime_ns >= self._since_ns:
            return True
        with open(descriptor, "rb", closefd=False) as file:
            is_good = hashlib.file_digest(file, "sha256").hexdigest() == shard.sha256
        if is_good:
            with suppress(PermissionError):  # another user's
                os.utime(descriptor)  # for the other processes of today
        else:
            log.warning("%s was altered: it is fetched again", path)
            path.unlink(missing_ok=True)
        return is_good

    def _reserve(
        self, descriptor: int, shard: Shard, order: Callable[[], Sequence[str]], *, is_limited: bool
    ) -> None:
        """Take the room for ``shard``, removing others where there is too little."""
        needed = shard.size_bytes
        with _locked(self._lock_path, fcntl.LOCK_EX):
            victims: Iterator[Path] | None = None
            while True:
                used = self._used_bytes()
                is_beyond = is_limited and 0 < self._limit_bytes < used + needed
                reason = f"{used + needed} bytes are more than the limit of {self._limit_bytes}"
                if not is_beyond:
                    try:
                        os.posix_fallocate(descriptor, 0, needed)
                    except OSError as error:
                        if error.errno not in _FULL:
                            raise self._refused(shard, error) from error
                        os.ftruncate(descriptor, 0)
                        reason = f"the disk has no room for {needed} bytes: {error.strerror}"
                    else:
                        return
                victims = victims or self._victims(order())
                if not self._remove_one(victims):
                    raise NoRoomError(reason, is_limit=is_beyond)

    def _used_bytes(self) -> int:
        total = 0
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def _victims(self, order: Sequence[str]) -> Iterator[Path]:
        """Yield the shards here: those that nobody asked for, oldest first, then the others."""
        place = {digest: number for number, digest in enumerate(order)}
        found = []
        for path in self.folder.glob("*.arrow"):
            with suppress(FileNotFoundError):
                found.append((-place.get(path.stem, len(place)), path.stat().st_mtime_ns, path))
        yield from (path for _, _, path in sorted(found))

    @staticmethod
    def _remove_one(victims: Iterator[Path]) -> bool:
        for path in victims:
            with suppress(OSError), _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                path.unlink()
                return True
        return False

    def _refused(self, shard: Shard, error: OSError) -> StorageError:
        return StorageError(
            f"{self.folder}: {shard.size_bytes} bytes for a shard cannot be written there:"
            f" {error.strerror}: make room, allow files of that size, or set"
            " train.loader.cache_path to another folder"
        )


def _copy(shard: Shard, descriptor: int, is_stopped: Callable[[], bool]) -> None:
    """Write the shard into the file, and check on the way that it is what the index says."""
    digest, size_bytes = hashlib.sha256(), 0
    with storage.open_reader(shard.uri) as reader:
        while block := reader.read(_BLOCK_BYTES):
            if is_stopped():
                raise StoppedError
            digest.update(block)
            size_bytes += len(block)
            if size_bytes <= shard.size_bytes:
                _write(descriptor, block)
    if (size_bytes, digest.hexdigest()) != (shard.size_bytes, shard.sha256):
        raise ShardError(
            f"{shard.uri}: expected {shard.size_bytes} bytes with SHA-256 {shard.sha256}, found"
            f" {size_bytes} with {digest.hexdigest()}: it was altered: delete"
            f" {shard.uri.rpartition('/')[0]} and run preprocess again"
        )


def _write(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except OSError as error:
            # The room was reserved: only file systems that cannot do that come here.
            raise NoRoomError(f"the disk is full: {error.strerror}", is_limit=False) from error


def _taken(part: Path) -> int | None:
    """Return a descriptor of the temporary file, locked; None if another process has it."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_named(part, descriptor):  # else who had it renamed or removed it before the lock
            return descriptor
    os.close(descriptor)
    return None


def _is_named(path: Path, descriptor: int) -> bool:
    """Return whether the open file is still the one of that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False


@contextmanager
def _locked(path: Path, operation: int) -> Iterator[None]:
    """Hold the lock on an existing file.

    Raises:
        OSError: If the file is not there, or the lock is not to be had.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)
