"""Files of this machine; each function here has its twin in ``s3``."""

import errno
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from plsc.errors import StorageError
from plsc.storage.info import ObjectInfo

__all__ = ["atomic_file", "delete", "delete_all", "ensure", "exists", "list_infos"]
__all__ += ["open_seekable", "open_stream", "read_into", "remove_folder", "stat", "upload", "write"]

_BUFFER_BYTES = 1 << 18


def open_stream(uri: str, start: int = 0, stop: int | None = None) -> BinaryIO:
    """Open bytes ``start`` to ``stop`` of a file for reading."""
    if stop is not None:
        return cast("BinaryIO", io.BufferedReader(_Span(_path(uri), start, stop), _BUFFER_BYTES))
    file = open_seekable(uri)
    file.seek(start)
    return file


def open_seekable(uri: str) -> BinaryIO:
    """Open a file for reading here and there."""
    return _path(uri).open("rb")


def stat(uri: str) -> ObjectInfo:
    """Return the size and the tag of a file."""
    path = _path(uri)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return _info(path)


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
    shutil.copyfile(_path(uri), path)


def exists(uri: str) -> bool:
    """Return whether there is a file exactly here."""
    return _path(uri).is_file()


def list_infos(prefix: str) -> Iterator[ObjectInfo]:
    """Yield the file, or every file below the folder, ``prefix``."""
    path = _path(prefix)
    files = [path] if path.is_file() else (p for p in path.rglob("*") if _is_content(p))
    for file in files:
        yield _info(file)


def delete(uri: str) -> None:
    """Remove a file, if it is there."""
    _path(uri).unlink(missing_ok=True)


def delete_all(uris: list[str]) -> None:
    """Remove files."""
    for uri in uris:
        delete(uri)


def remove_folder(uri: str) -> None:
    """Remove a folder that has lost its files, if it is there."""
    shutil.rmtree(_path(uri), ignore_errors=True)


def ensure(uri: str) -> None:
    """Create a folder if it is not there."""
    _path(uri).mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary name beside ``path`` that becomes ``path`` when the block ends well.

    Durable content is on the disk, not in the machine's memory alone, before it has the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
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
        self._file = path.open("rb", buffering=0)
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


def _info(path: Path) -> ObjectInfo:
    status = path.stat()
    return ObjectInfo(str(path), status.st_size, f"{status.st_size:x}-{status.st_mtime_ns:x}")


def _path(uri: str) -> Path:
    parts = urlsplit(uri, allow_fragments=False)
    if parts.scheme == "file":
        return Path(parts.path)
    if "://" in uri:
        raise StorageError(
            f"{uri!r} has the unknown scheme {parts.scheme!r}:"
            " expected s3://, minio://, file:// or a path, or for inputs hdfs:// or webhdfs://"
        )
    return Path(uri)


def _is_content(path: Path) -> bool:
    """Return whether this is a file, and none that a writer is at (or was, when killed)."""
    return path.is_file() and not (path.name.startswith(".") and path.name.endswith(".part"))
