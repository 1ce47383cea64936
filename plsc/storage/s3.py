"""Objects of an S3 store, by boto3; each function here has its twin in ``disk``."""

import functools
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlsplit

from plsc.errors import StorageError
from plsc.storage.advice import explained
from plsc.storage.info import ObjectInfo

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

__all__ = ["client", "delete", "ensure", "exists", "list_infos", "open_stream", "read_into"]
__all__ += ["upload", "write"]

MULTIPART_BYTES = 64 * 1024 * 1024
"""Larger files travel in parts, side by side."""

_BUFFER_BYTES = 1 << 20


@functools.cache
def client() -> "S3Client":
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


os.register_at_fork(after_in_child=client.cache_clear)


def open_stream(uri: str) -> BinaryIO:
    """Open an object for reading from its beginning."""
    bucket, key = _bucket_and_key(uri)
    body = client().get_object(Bucket=bucket, Key=key)["Body"]
    return cast("BinaryIO", io.BufferedReader(_Body(uri, body), _BUFFER_BYTES))


def write(uri: str, content: bytes) -> None:
    """Write a whole object."""
    bucket, key = _bucket_and_key(uri)
    client().put_object(Bucket=bucket, Key=key, Body=content)


def upload(path: Path, uri: str) -> None:
    """Copy a local file to an object."""
    from boto3.s3.transfer import TransferConfig  # noqa: PLC0415

    bucket, key = _bucket_and_key(uri)
    config = TransferConfig(
        multipart_threshold=MULTIPART_BYTES, multipart_chunksize=MULTIPART_BYTES
    )
    client().upload_file(str(path), bucket, key, Config=config)


def read_into(uri: str, path: Path) -> None:
    """Copy an object into the local file ``path``."""
    bucket, key = _bucket_and_key(uri)
    client().download_file(bucket, key, str(path))


def exists(uri: str) -> bool:
    """Return whether this key exists (not by HEAD, which says no to a lost bucket as well)."""
    bucket, key = _bucket_and_key(uri)
    page = client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    return any(entry["Key"] == key for entry in page.get("Contents", []))


def list_infos(prefix: str) -> Iterator[ObjectInfo]:
    """Yield every object whose key begins so, in the store's order."""
    bucket, key = _bucket_and_key(prefix)
    for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
        for entry in page.get("Contents", []):
            uri, tag = f"s3://{bucket}/{entry['Key']}", entry["ETag"].strip('"')
            yield ObjectInfo(uri, entry["Size"], tag)


def delete(uri: str) -> None:
    """Remove an object, if it is there."""
    bucket, key = _bucket_and_key(uri)
    client().delete_object(Bucket=bucket, Key=key)


def ensure(uri: str) -> None:
    """Create the bucket of ``uri`` if it is not there."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    bucket, _ = _bucket_and_key(uri)
    try:
        client().create_bucket(Bucket=bucket)
    except ClientError as error:
        known = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
        if error.response["Error"]["Code"] not in known:
            raise


class _Body(io.RawIOBase):
    """A botocore body as a raw stream, so that ``io.BufferedReader`` can give lines."""

    def __init__(self, uri: str, body: "StreamingBody") -> None:
        self._uri = uri
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        with explained(self._uri):
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
