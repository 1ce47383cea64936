"""Files of this machine; each function here has its twin in ``s3``."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from plsc.errors import StorageError
from plsc.storage.info import ObjectInfo

__all__ = ["atomic_file", "delete", "ensure", "exists", "list_infos", "open_stream", "read_into"]
__all__ += ["remove_folder", "upload", "write"]


def open_stream(uri: str) -> BinaryIO:
    """Open a file for reading from its beginning."""
    return _path(uri).open("rb")


def write(uri: str, content: bytes) -> None:
    """Write a whole file."""
    with atomic_file(_path(uri)) as temporary:
        temporary.write_bytes(content)


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
        status = file.stat()
        yield ObjectInfo(str(file), status.st_size, f"{status.st_size:x}-{status.st_mtime_ns:x}")


def delete(uri: str) -> None:
    """Remove a file, if it is there."""
    _path(uri).unlink(missing_ok=True)


def remove_folder(uri: str) -> None:
    """Remove a folder that has lost its files, if it is there."""
    shutil.rmtree(_path(uri), ignore_errors=True)


def ensure(uri: str) -> None:
    """Create a folder if it is not there."""
    _path(uri).mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` that becomes ``path`` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _path(uri: str) -> Path:
    parts = urlsplit(uri, allow_fragments=False)
    if parts.scheme == "file":
        return Path(parts.path)
    if "://" in uri:
        raise StorageError(
            f"{uri!r} has the unknown scheme {parts.scheme!r}:"
            " expected s3://, minio://, file:// or a path"
        )
    return Path(uri)


def _is_content(path: Path) -> bool:
    """Return whether this is a file, and none that a writer is at (or was, when killed)."""
    return path.is_file() and not (path.name.startswith(".") and path.name.endswith(".part"))
