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
import heapq
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from plsc import storage
from plsc.artifacts.shards import Shard
from plsc.errors import ShardError, StorageError
from plsc.train.loader.locking import TRY, is_named, locked, removed, taken

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


class _File(NamedTuple):
    name: str
    size_bytes: int
    mtime_ns: int


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
            StorageError: If the folder cannot be written, or its file system has no locks.
        """
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._lock_path = folder / ".lock"
        with self._told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock_path.touch()
            # By the file system's own clock: what is younger was checked by a process of today.
            self._since_ns = self._lock_path.stat().st_mtime_ns
            with suppress(BlockingIOError), locked(self._lock_path, TRY):
                pass  # it can be
        for part in folder.glob(".*.part"):
            removed(part)

    def held(self, shard: Shard) -> HeldShard | None:
        """Return ``shard`` if it lies here, held; its digest is checked if that is still to do.

        None if it does not, or no longer has the content that the index says (then it is removed).

        Raises:
            StorageError: If the folder cannot be used.
        """
        path = self.folder / f"{shard.sha256}.arrow"
        with self._told(path), suppress(FileNotFoundError), ExitStack() as undone:
            descriptor = os.open(path, os.O_RDONLY)
            undone.callback(os.close, descriptor)
            with suppress(BlockingIOError):  # it is just being removed
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if is_named(path, descriptor) and self._is_checked(path, descriptor, shard):
                    undone.pop_all()
                    return HeldShard(descriptor)
        return None

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
        with self._told(part):
            descriptor = taken(part)
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
                if is_named(part, descriptor):
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
        """Take the room for ``shard``, removing others where there is too little.

        The folder, which may hold 100,000 files, is looked through once, and only if it must be.
        """
        limit = self._limit_bytes if is_limited else 0
        with locked(self._lock_path, fcntl.LOCK_EX):
            files = self._files() if limit else []
            used = sum(file.size_bytes for file in files) + shard.size_bytes
            victims: Iterator[_File] | None = None
            while (is_beyond := 0 < limit < used) or not self._is_allocated(descriptor, shard):
                if victims is None:
                    victims = _by_need(files or self._files(), order())
                victim = next((one for one in victims if removed(self.folder / one.name)), None)
                if victim is None:
                    reason = f"the disk has no room for {shard.size_bytes} bytes"
                    if is_beyond:
                        reason = f"{used} bytes are more than the limit of {limit}"
                    raise NoRoomError(reason, is_limit=is_beyond)
                used -= victim.size_bytes

    def _is_allocated(self, descriptor: int, shard: Shard) -> bool:
        """Have the room on the disk, or return False: it is full."""
        try:
            os.posix_fallocate(descriptor, 0, shard.size_bytes)
        except OSError as error:
            if error.errno not in _FULL:
                raise self._refused(shard, error) from error
            os.ftruncate(descriptor, 0)
            return False
        return True

    def _files(self) -> list[_File]:
        files = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    files.append(_File(entry.name, status.st_size, status.st_mtime_ns))
        return files

    @staticmethod
    @contextmanager
    def _told(path: Path) -> Iterator[None]:
        """Say whose ``path`` it is, and of which setting, if the system refuses something."""
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{path}: shards cannot be kept there: {error.strerror}: set"
                " train.loader.cache_path to a folder that may be written, with file locks"
            ) from error

    def _refused(self, shard: Shard, error: OSError) -> StorageError:
        return StorageError(
            f"{self.folder}: {shard.size_bytes} bytes for a shard cannot be written there:"
            f" {error.strerror}: make room, allow files of that size, or set"
            " train.loader.cache_path to another folder"
        )


def _by_need(files: Sequence[_File], order: Sequence[str]) -> Iterator[_File]:
    """Yield the shards among them: those that nobody asked for, oldest first, then the others."""
    place = {f"{digest}.arrow": number for number, digest in enumerate(order)}
    found = [
        (-place.get(file.name, len(place)), file.mtime_ns, file)
        for file in files
        if file.name.endswith(".arrow")
    ]
    heapq.heapify(found)  # few of many are taken
    while found:
        yield heapq.heappop(found)[-1]


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
            f" {shard.uri.rpartition('/')[0]} and run preprocess again (on a cluster: CACHE=off)"
        )


def _write(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except OSError as error:
            # The room was reserved: only file systems that cannot do that come here.
            raise NoRoomError(f"the disk is full: {error.strerror}", is_limit=False) from error
