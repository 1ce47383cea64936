"""The public functions: each asks the store of its uri, and explains what goes wrong."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from plsc.errors import StorageError
from plsc.storage import disk, hadoop, s3
from plsc.storage.advice import explained
from plsc.storage.info import ObjectInfo
from plsc.storage.names import scheme_of

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
    "open_seekable",
    "read_bytes",
    "read_range",
    "read_range_into",
    "sha256_of_file",
    "stat",
    "upload",
    "write_bytes",
]

_STORES = {"s3": s3, "minio": s3} | dict.fromkeys(hadoop.SCHEMES, hadoop)


def is_remote(uri: str) -> bool:
    """Return whether ``uri`` lies in an object store or a cluster, not on this machine's disk."""
    return scheme_of(uri) in _STORES


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
def open_reader(uri: str, *, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
    """Open bytes ``start`` to ``stop`` of ``uri`` for reading as a stream, without seeking.

    A connection that breaks is made again at the place reached. Bytes after the end are left
    out, as in a slice.

    Args:
        uri: What to read.
        start: The first byte, at least 0.
        stop: One past the last byte, at least ``start``; None is the end of the object.

    Raises:
        StorageError: If it is missing or refused, or if reading fails on the way; if it is
            replaced by another object while a broken connection is made again.
    """
    with explained(uri):
        _check_range(uri, start, stop)
        reader = _store(uri).open_stream(uri, start, stop)
    with reader:
        yield reader


def read_range(uri: str, start: int, stop: int) -> bytes:
    """Return exactly bytes ``start`` to ``stop`` of ``uri``.

    Raises:
        StorageError: If it is missing or refused, or ends before ``stop``.
    """
    with open_reader(uri, start=start, stop=stop) as reader:
        content = reader.read(stop - start)
    _check_whole(uri, start, stop, len(content))
    return content


def read_range_into(uri: str, start: int, target: memoryview) -> None:
    """Fill ``target``, any writable buffer, with the bytes of ``uri`` from ``start`` on.

    Raises:
        StorageError: If it is missing or refused, or ends before that.
    """
    target = target.cast("B")
    stop, filled = start + len(target), 0
    with open_reader(uri, start=start, stop=stop) as reader:
        while filled < len(target) and (count := reader.readinto(target[filled:])):  # type: ignore[attr-defined]
            filled += count
    _check_whole(uri, start, stop, filled)


@contextmanager
def open_seekable(uri: str) -> Iterator[BinaryIO]:
    """Open ``uri`` for reading here and there (``seek``, ``tell``, ``read``), as pyarrow does.

    Remotely this makes one ranged request for each jump; reading in order makes ever longer ones.

    Raises:
        StorageError: If it is missing or refused, if reading fails on the way, or if it is
            replaced by another object before the block ends.
    """
    with explained(uri):
        reader = _store(uri).open_seekable(uri)
    with reader:
        yield reader


def stat(uri: str) -> ObjectInfo:
    """Return the size and the tag of the object (or file) exactly at ``uri``.

    Raises:
        StorageError: If it is missing or refused.
    """
    with explained(uri):
        info: ObjectInfo = _store(uri).stat(uri)
    return info


def write_bytes(uri: str, content: bytes | bytearray | memoryview, *, durable: bool = True) -> None:
    """Write ``content`` to ``uri``, atomically replacing what was there.

    Args:
        uri: Where to write.
        content: Bytes, or any other buffer by ``memoryview(...)``, which is not copied.
        durable: Wait until the disk has it. Without, the file can be lost, whole or in part,
            when the machine loses its power (not when the process is killed): for what can be
            made again. An object store makes no difference.

    Raises:
        StorageError: If the store refuses, is not there, or has no room.
    """
    with explained(uri):
        _store(uri).write(uri, content, durable=durable)


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

    Locally, ``prefix`` is a file or a folder; links to files and folders are followed. The list is
    made whole before the first is given: stores differ in their order (SeaweedFS walks folders,
    AWS sorts keys), and the order decides what a shuffle gives.

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

    Of a folder on disk that is a link to another place, below ``prefix``, the link alone goes.

    Raises:
        StorageError: If the store refuses.
    """
    if not is_remote(prefix):
        with explained(prefix):
            return disk.remove_folder(prefix)
    found = list(list_objects(prefix.rstrip("/") + "/"))
    with explained(prefix):
        _store(prefix).delete_all([info.uri for info in found])
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


def _check_range(uri: str, start: int, stop: int | None) -> None:
    if start < 0 or (stop is not None and stop < start):
        raise StorageError(
            f"{uri}: bytes {start} to {stop} are no range: expected 0 <= start <= stop"
        )


def _check_whole(uri: str, start: int, stop: int, num_bytes: int) -> None:
    if num_bytes != stop - start:
        raise StorageError(
            f"{uri}: expected the bytes from {start} to {stop}, but it ends at"
            f" {start + num_bytes} or before: it was cut off, or is not what was written there"
        )


def _store(uri: str) -> ModuleType:
    return _STORES.get(scheme_of(uri), disk)
