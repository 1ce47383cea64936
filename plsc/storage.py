"""The one door to bytes: objects under ``s3://`` and files on disk behind the same few functions.

A *uri* is ``s3://bucket/key`` (``minio://`` means the same; KFP writes it), ``file:///path``, or a
plain path. The S3 endpoint and credentials come from the environment alone (``S3_ENDPOINT`` or
``AWS_ENDPOINT_URL_S3``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_DEFAULT_REGION``):
they are facts of the place where a process runs, and secrets belong in no parameter.

Every write is atomic: a reader sees the old object, or the whole new one, never a part. A stage
therefore commits by writing its index last. botocore retries with backoff and checks CRCs on both
ways; the indexes carry SHA-256 digests on top of that.
"""

import functools
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlsplit

from plsc.errors import StorageError

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

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
_MULTIPART_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class ObjectInfo:
    """One object or file: its uri, its size, and a tag that changes when its content does."""

    uri: str
    size_bytes: int
    etag: str


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
    with _explained(uri):
        if is_remote(uri):
            bucket, key = _bucket_and_key(uri)
            raw = _RemoteObject(uri, _client().get_object(Bucket=bucket, Key=key)["Body"])
            reader = cast("BinaryIO", io.BufferedReader(raw, 1 << 20))
        else:
            reader = _local(uri).open("rb")
    with reader:
        yield reader


def write_bytes(uri: str, content: bytes) -> None:
    """Write ``content`` to ``uri``, atomically replacing what was there.

    Raises:
        StorageError: If the store refuses, is not there, or has no room.
    """
    if not is_remote(uri):
        with _explained(uri), _atomic_file(_local(uri)) as temporary:
            temporary.write_bytes(content)
        return
    bucket, key = _bucket_and_key(uri)
    with _explained(uri):
        _client().put_object(Bucket=bucket, Key=key, Body=content)


def upload(path: Path, uri: str) -> None:
    """Copy the local file ``path`` to ``uri`` (in parts, side by side, when it is large).

    Raises:
        StorageError: If the store refuses, is not there, or has no room.
    """
    if not is_remote(uri):
        with _explained(uri), _atomic_file(_local(uri)) as temporary:
            shutil.copyfile(path, temporary)
        return
    from boto3.s3.transfer import TransferConfig  # noqa: PLC0415

    bucket, key = _bucket_and_key(uri)
    config = TransferConfig(
        multipart_threshold=_MULTIPART_BYTES, multipart_chunksize=_MULTIPART_BYTES
    )
    with _explained(uri):
        _client().upload_file(str(path), bucket, key, Config=config)


def download(uri: str, path: Path) -> None:
    """Copy ``uri`` to the local file ``path``, which appears only when it is complete.

    Raises:
        StorageError: If it is missing, refused or cut off, or if the disk has no room.
    """
    with _explained(uri), _atomic_file(path) as temporary:
        if is_remote(uri):
            bucket, key = _bucket_and_key(uri)
            _client().download_file(bucket, key, str(temporary))
        else:
            shutil.copyfile(_local(uri), temporary)


def exists(uri: str) -> bool:
    """Return whether there is an object (or file) exactly at ``uri``.

    Raises:
        StorageError: If the store cannot be asked (absence of a bucket included: it is a mistake,
            not a no).
    """
    if not is_remote(uri):
        return _local(uri).is_file()
    bucket, key = _bucket_and_key(uri)
    with _explained(uri):
        # The exact name is the first that begins with it; HEAD would not tell an absent bucket.
        page = _client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    return any(entry["Key"] == key for entry in page.get("Contents", []))


def list_objects(prefix: str) -> Iterator[ObjectInfo]:
    """Yield every object whose uri begins with ``prefix``, in the order of their uris.

    Locally, ``prefix`` is a file or a folder. The list is made whole before the first is given:
    stores differ in their order (SeaweedFS walks folders, AWS sorts keys), and the order decides
    what a shuffle gives.

    Raises:
        StorageError: If the store cannot be asked.
    """
    found = _list_remote(prefix) if is_remote(prefix) else _list_local(_local(prefix))
    yield from sorted(found, key=lambda info: info.uri)


def delete(uri: str) -> None:
    """Remove the object or file at ``uri``; nothing happens when there is none.

    Raises:
        StorageError: If the store refuses.
    """
    with _explained(uri):
        if is_remote(uri):
            bucket, key = _bucket_and_key(uri)
            _client().delete_object(Bucket=bucket, Key=key)
        else:
            _local(uri).unlink(missing_ok=True)


def delete_prefix(prefix: str) -> int:
    """Remove every object below the folder ``prefix`` and return how many there were.

    Raises:
        StorageError: If the store refuses.
    """
    found = list(list_objects(prefix.rstrip("/") + "/"))
    for info in found:
        delete(info.uri)
    if not is_remote(prefix):
        shutil.rmtree(_local(prefix), ignore_errors=True)
    return len(found)


def ensure_bucket(uri: str) -> None:
    """Create the bucket of ``uri`` if it is not there (locally, the folder).

    Raises:
        StorageError: If the store refuses.
    """
    if not is_remote(uri):
        with _explained(uri):
            _local(uri).mkdir(parents=True, exist_ok=True)
        return
    from botocore.exceptions import ClientError  # noqa: PLC0415

    bucket, _ = _bucket_and_key(uri)
    with _explained(uri):
        try:
            _client().create_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in (
                "BucketAlreadyOwnedByYou",
                "BucketAlreadyExists",
            ):
                raise


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 digest of a local file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- S3 -----------------------------------------------------------------------------------------


@functools.cache
def _client() -> "S3Client":
    """Return this process's S3 client (boto3 clients may be shared by threads; not by forks)."""
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    return boto3.Session().client(
        "s3",
        endpoint_url=os.environ.get("S3_ENDPOINT") or None,
        region_name=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
        config=Config(
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=16,
        ),
    )


os.register_at_fork(after_in_child=_client.cache_clear)


class _RemoteObject(io.RawIOBase):
    """A botocore body as a raw stream, so that ``io.BufferedReader`` can give lines."""

    def __init__(self, uri: str, body: "StreamingBody") -> None:
        self._uri = uri
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        with _explained(self._uri):
            chunk = self._body.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._body.close()
        super().close()


def _bucket_and_key(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri, allow_fragments=False)
    if not parts.netloc:
        raise StorageError(f"{uri!r} names no bucket: expected s3://bucket/key")
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return parts.netloc, path.lstrip("/")


def _list_remote(prefix: str) -> Iterator[ObjectInfo]:
    bucket, key_prefix = _bucket_and_key(prefix)
    with _explained(prefix):
        pages = (
            _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key_prefix)
        )
        for page in pages:
            for entry in page.get("Contents", []):
                yield ObjectInfo(
                    f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["ETag"].strip('"')
                )


# --- disk ---------------------------------------------------------------------------------------


def _local(uri: str) -> Path:
    parts = urlsplit(uri, allow_fragments=False)
    if parts.scheme == "file":
        return Path(parts.path)
    if "://" in uri:
        raise StorageError(
            f"{uri!r} has the unknown scheme {parts.scheme!r}:"
            " expected s3://, minio://, file:// or a path"
        )
    return Path(uri)


def _list_local(path: Path) -> Iterator[ObjectInfo]:
    files = [path] if path.is_file() else (p for p in path.rglob("*") if _is_content(p))
    for file in files:
        status = file.stat()
        yield ObjectInfo(str(file), status.st_size, f"{status.st_size:x}-{status.st_mtime_ns:x}")


def _is_content(path: Path) -> bool:
    """Return whether this is a file, and none that a writer is at (or was, when killed)."""
    return path.is_file() and not (path.name.startswith(".") and path.name.endswith(".part"))


@contextmanager
def _atomic_file(path: Path) -> Iterator[Path]:
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


# --- words for what went wrong ------------------------------------------------------------------

_REFUSED = "these credentials may not do that: check AWS_ACCESS_KEY_ID and the bucket's policy"
_ADVICE = {
    "NoSuchBucket": "the bucket does not exist: create it, or correct the uri",
    "NoSuchKey": "there is no such object: check the uri, or run the stage that writes it",
    "404": "there is no such object: check the uri, or run the stage that writes it",
    "InvalidAccessKeyId": "the access key is unknown there: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
    "AccessDenied": _REFUSED,
    "403": _REFUSED,
}


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn botocore's and the operating system's errors into StorageErrors with advice."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(
            f"{uri}: there is no such file: check the path, or run the stage that writes it"
        ) from error
    except OSError as error:
        raise StorageError(
            f"{uri}: {error.strerror or error}: check that the disk has room and may be written"
        ) from error
    except Exception as error:
        explanation = _explain(error)
        if explanation is None:
            raise
        raise StorageError(f"{uri}: {explanation}") from error


def _explain(error: Exception) -> str | None:
    from boto3.exceptions import Boto3Error  # noqa: PLC0415
    from botocore.exceptions import (  # noqa: PLC0415
        BotoCoreError,
        ClientError,
        EndpointConnectionError,
        NoCredentialsError,
    )

    if isinstance(error, Boto3Error) and isinstance(error.__context__, ClientError):
        error = error.__context__
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        return _ADVICE.get(
            code, f"the store answered {code}: {error.response.get('Error', {}).get('Message', '')}"
        )
    if isinstance(error, NoCredentialsError):
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and S3_ENDPOINT)"
    if isinstance(error, EndpointConnectionError):
        endpoint = os.environ.get("S3_ENDPOINT", "AWS")
        return (
            f"no object store answers at {endpoint}: start it (make services-up),"
            " or correct S3_ENDPOINT"
        )
    if isinstance(error, BotoCoreError | Boto3Error):
        return str(error)
    return None
