"""Files of this machine; each function here has its twin in ``s3``."""

import errno
import io
import os
import shutil
import stat as modes
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from plsc.errors import StorageError
from plsc.storage.info import ObjectInfo
from plsc.storage.names import path_on_disk

__all__ = ["atomic_file", "delete", "ensure", "exists", "list_infos"]
__all__ += ["open_seekable", "open_stream", "read_into", "remove_folder", "stat", "upload", "write"]

_BUFFER_BYTES = 1 << 18
_UNFINISHED = ".part"
_GONE = (FileNotFoundError, NotADirectoryError)


def open_stream(uri: str, start: int = 0, stop: int | None = None) -> BinaryIO:
    """Open bytes ``start`` to ``stop`` of a file for reading."""
    if stop is not None:
        return cast("BinaryIO", io.BufferedReader(_Span(_path(uri), start, stop), _BUFFER_BYTES))
    file = open_seekable(uri)
    file.seek(start)
    return file


def open_seekable(uri: str) -> BinaryIO:
    """Open a file for reading here and there."""
    return _regular(_path(uri)).open("rb")


def stat(uri: str) -> ObjectInfo:
    """Return the size and the tag of a file."""
    path = _regular(_path(uri))
    return _info(str(path), path.stat())


def write(uri: str, content: bytes | bytearray | memoryview, *, durable: bool) -> None:
    """Write a whole file; one that is not durable may be lost with the machine's power."""
    with atomic_file(_path(uri), durable=durable) as temporary, temporary.open("wb") as file:
        file.write(content)


def upload(path: Path, uri: str) -> None:
    """Copy a file to another place."""
    with atomic_file(_path(uri)) as temporary:
        shutil.copyfile(path, temporary)


def read_into(uri: str, path: Path) -> None:
    """Copy a file into the file ``path``."""
    shutil.copyfile(_regular(_path(uri)), path)


def exists(uri: str) -> bool:
    """Return whether there is a file exactly here."""
    return _path(uri).is_file()


def list_infos(prefix: str) -> Iterator[ObjectInfo]:
    """Yield the file, or every file below the folder, ``prefix``, behind links as well."""
    return (_info(path, status) for path, status in _files(_path(prefix), follows=True))


def delete(uri: str) -> None:
    """Remove a file, if it is there."""
    _path(uri).unlink(missing_ok=True)


def remove_folder(uri: str) -> int:
    """Remove a folder (or file), if it is there, and return how many files there were.

    Of a folder in it that is a link the link alone goes: what it leads to may be another's.
    """
    found = [path for path, _ in _files(_path(uri), follows=False)]
    for path in found:
        Path(path).unlink(missing_ok=True)
    shutil.rmtree(_path(uri), ignore_errors=True)
    return len(found)


def ensure(uri: str) -> None:
    """Create a folder if it is not there."""
    _path(uri).mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary name beside ``path`` that becomes ``path`` when the block ends well.

    Durable content is on the disk, not in the machine's memory alone, before it has the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Nothing of the name is in it: names may be as long as the file system allows.
    handle, name = tempfile.mkstemp(prefix=".", suffix=_UNFINISHED, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class _Span(io.RawIOBase):
    """Bytes ``start`` to ``stop`` of a file, or to its end when that is before."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self._file = _regular(path).open("rb", buffering=0)
        self._file.seek(start)
        self._left = stop - start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        count = self._file.readinto(memoryview(buffer)[: self._left])
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _info(path: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(path, status.st_size, f"{status.st_size:x}-{status.st_mtime_ns:x}")


def _path(uri: str) -> Path:
    return Path(path_on_disk(uri))


def _regular(path: Path) -> Path:
    """Return the path of a file; a pipe, socket or device would block whoever opens it.

    Raises:
        StorageError: If it is one of those.
        OSError: If it is a folder, or is not there.
    """
    mode = path.stat().st_mode
    if modes.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not modes.S_ISREG(mode):
        raise StorageError(
            f"{path}: expected a file, found a pipe, socket or device: correct the path"
        )
    return path


_Found = tuple[str, os.stat_result]


def _files(top: Path, *, follows: bool) -> Iterator[_Found]:
    """Yield the file, or every file below the folder, ``top``, in no order.

    What vanishes meanwhile is left out, as are files that are being written (or were, when the
    writer was killed), and pipes, sockets and devices. A link that leads back to a folder above
    itself is not followed; one to a file always is.
    """
    try:
        status = top.stat()
    except _GONE:
        return
    if modes.S_ISREG(status.st_mode):
        yield str(top), status
        return
    waiting = [(str(top), frozenset({(status.st_dev, status.st_ino)}))]
    while waiting:
        folder, above = waiting.pop()
        for entry, status in _entries(folder):
            identity = (status.st_dev, status.st_ino)
            if modes.S_ISREG(status.st_mode) and not _is_unfinished(entry.name):
                yield entry.path.removeprefix("./"), status
            is_folder = modes.S_ISDIR(status.st_mode) and (follows or not entry.is_symlink())
            if is_folder and identity not in above:
                waiting.append((entry.path, above | {identity}))


def _entries(folder: str) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    with suppress(*_GONE), os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat()
            except OSError as error:  # it vanished, or is a link that leads nowhere or to itself
                if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                    raise
            else:
                yield entry, status


def _is_unfinished(name: str) -> bool:
    return name.startswith(".") and name.endswith(_UNFINISHED)
