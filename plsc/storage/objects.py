"""The public functions: each asks the store of its uri, and explains what goes wrong."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO
from urllib.parse import urlsplit

from plsc.errors import StorageError
from plsc.storage import disk, s3
from plsc.storage.advice import explained
from plsc.storage.info import ObjectInfo

__all__ = [
    "ObjectInfo",
    "delete",
    "delete_prefix",
    "download",
    "ensure_bucket",
    "exists",
    "is_remote",
    "join",
    "list_objects",
    "open_reader",
    "read_bytes",
    "sha256_of_file",
    "upload",
    "write_bytes",
]

_REMOTE_SCHEMES = ("s3", "minio")


def is_remote(uri: str) -> bool:
    """Return whether ``uri`` lies in an object store rather than on this machine's disk."""
    return urlsplit(uri).scheme in _REMOTE_SCHEMES


def join(uri: str, *parts: str) -> str:
    """Return ``uri`` with ``parts`` appended, one slash between each."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def read_bytes(uri: str, *, limit_bytes: int | None = None) -> bytes:
    """Return the whole content of ``uri``.

    Args:
        uri: What to read.
        limit_bytes: Refuse anything larger, before it is read (for untrusted content).

    Raises:
        StorageError: If it is missing, refused, cut off, or larger than ``limit_bytes``.
    """
    with open_reader(uri) as reader:
        content = reader.read() if limit_bytes is None else reader.read(limit_bytes + 1)
    if limit_bytes is not None and len(content) > limit_bytes:
        raise StorageError(
            f"{uri} is larger than the {limit_bytes} bytes allowed for what it should hold"
        )
    return content


@contextmanager
def open_reader(uri: str) -> Iterator[BinaryIO]:
    """Open ``uri`` for reading from its beginning, as a stream.

    Raises:
        StorageError: If it is missing or refused, or if reading fails on the way.
    """
    with explained(uri):
        reader = _store(uri).open_stream(uri)
    with reader:
        yield reader


def write_bytes(uri: str, content: bytes) -> None:
    """Write ``content`` to ``uri``, atomically replacing what was there.

    Raises:
        StorageError: If the store refuses, is not there, or has no room.
    """
    with explained(uri):
        _store(uri).write(uri, content)


def upload(path: Path, uri: str) -> None:
    """Copy the local file ``path`` to ``uri`` (in parts, side by side, when it is large).

    Raises:
        StorageError: If the store refuses, is not there, or has no room.
    """
    with explained(uri):
        _store(uri).upload(path, uri)


def download(uri: str, path: Path) -> None:
    """Copy ``uri`` to the local file ``path``, which appears only when it is complete.

    Raises:
        StorageError: If it is missing, refused or cut off, or if the disk has no room.
    """
    with explained(uri), disk.atomic_file(path) as temporary:
        _store(uri).read_into(uri, temporary)


def exists(uri: str) -> bool:
    """Return whether there is an object (or file) exactly at ``uri``.

    Raises:
        StorageError: If the store cannot be asked (a bucket that is absent is a mistake, not a no).
    """
    with explained(uri):
        return bool(_store(uri).exists(uri))


def list_objects(prefix: str) -> Iterator[ObjectInfo]:
    """Yield every object whose uri begins with ``prefix``, in the order of their uris.

    Locally, ``prefix`` is a file or a folder. The list is made whole before the first is given:
    stores differ in their order (SeaweedFS walks folders, AWS sorts keys), and the order decides
    what a shuffle gives.

    Raises:
        StorageError: If the store cannot be asked.
    """
    with explained(prefix):
        found = sorted(_store(prefix).list_infos(prefix), key=lambda info: str(info.uri))
    yield from found


def delete(uri: str) -> None:
    """Remove the object or file at ``uri``; nothing happens when there is none.

    Raises:
        StorageError: If the store refuses.
    """
    with explained(uri):
        _store(uri).delete(uri)


def delete_prefix(prefix: str) -> int:
    """Remove every object below the folder ``prefix`` and return how many there were.

    Raises:
        StorageError: If the store refuses.
    """
    found = list(list_objects(prefix.rstrip("/") + "/"))
    for info in found:
        delete(info.uri)
    if not is_remote(prefix):
        disk.remove_folder(prefix)
    return len(found)


def ensure_bucket(uri: str) -> None:
    """Create the bucket of ``uri`` if it is not there (locally, the folder).

    Raises:
        StorageError: If the store refuses.
    """
    with explained(uri):
        _store(uri).ensure(uri)


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 digest of a local file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _store(uri: str) -> ModuleType:
    return s3 if is_remote(uri) else disk
