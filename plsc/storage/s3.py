"""Objects of an S3 store, by boto3; each function here has its twin in ``disk``."""

import functools
import io
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from plsc.errors import StorageError
from plsc.storage import patience
from plsc.storage.info import ObjectInfo
from plsc.storage.names import authority_and_path
from plsc.storage.streams import Body, Part, SeekableStream, Stream

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["client", "delete", "delete_all", "ensure", "exists", "list_infos", "open_seekable"]
__all__ += ["open_stream", "read_into", "stat", "upload", "write"]

MULTIPART_BYTES = 64 * 1024 * 1024
"""Larger files go up in parts, side by side."""

PART_BYTES = 16 * 1024 * 1024
"""Larger objects come down in parts, side by side."""

_PARTS_AT_ONCE = 4
_BUFFER_BYTES = 1 << 20
_KEYS_PER_DELETION = 1000
_NOT_IN_EVERY_STORE = ("NotImplemented", "MethodNotAllowed", "405", "501")


@functools.cache
def client() -> "S3Client":
    """Return this process's S3 client (boto3 clients may be shared by threads; not by forks)."""
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    made = boto3.Session().client(
        "s3",
        endpoint_url=os.environ.get("S3_ENDPOINT") or None,
        region_name=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
        config=Config(
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=min(5, patience.timeout_s()),
            read_timeout=patience.timeout_s(),
            max_pool_connections=16,
        ),
    )
    patience.install(made)
    return made


os.register_at_fork(after_in_child=client.cache_clear)


def open_stream(uri: str, start: int = 0, stop: int | None = None) -> BinaryIO:
    """Open bytes ``start`` to ``stop`` of an object for reading."""
    return cast("BinaryIO", io.BufferedReader(_stream(uri, start, stop), _BUFFER_BYTES))


def open_seekable(uri: str) -> BinaryIO:
    """Open an object for reading here and there."""
    info = stat(uri)
    raw = SeekableStream(
        info.size_bytes, lambda start, stop: _stream(uri, start, stop, tag=info.etag)
    )
    return cast("BinaryIO", io.BufferedReader(raw, _BUFFER_BYTES))


def stat(uri: str) -> ObjectInfo:
    """Return the size and the tag of an object."""
    bucket, key = _bucket_and_key(uri)
    answer = client().head_object(Bucket=bucket, Key=key)
    return ObjectInfo(f"s3://{bucket}/{key}", answer["ContentLength"], answer["ETag"].strip('"'))


def write(uri: str, content: bytes | bytearray | memoryview, *, durable: bool) -> None:  # noqa: ARG001
    """Write a whole object (which is as durable as the store, always)."""
    bucket, key = _bucket_and_key(uri)
    body = content if isinstance(content, bytes) else cast("BinaryIO", _View(memoryview(content)))
    client().put_object(Bucket=bucket, Key=key, Body=body)


def upload(path: Path, uri: str) -> None:
    """Copy a local file to an object."""
    from boto3.s3.transfer import TransferConfig  # noqa: PLC0415

    bucket, key = _bucket_and_key(uri)
    config = TransferConfig(
        multipart_threshold=MULTIPART_BYTES, multipart_chunksize=MULTIPART_BYTES
    )
    client().upload_file(str(path), bucket, key, Config=config)


def read_into(uri: str, path: Path) -> None:
    """Copy an object into the local file ``path``, in parts side by side when it is large."""
    with _stream(uri, 0, PART_BYTES) as first:
        _copy(first, path, 0)
    with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:

        def copy_part(start: int) -> None:
            with _stream(uri, start, start + PART_BYTES, tag=first.tag) as part:
                _copy(part, path, start)

        copies = [
            pool.submit(copy_part, at) for at in range(PART_BYTES, first.size_bytes, PART_BYTES)
        ]
        try:
            for copy in copies:
                copy.result()
        finally:
            pool.shutdown(cancel_futures=True)


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


def delete_all(uris: list[str]) -> None:
    """Remove objects of one bucket, a thousand with each request."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    for at in range(0, len(uris), _KEYS_PER_DELETION):
        some = uris[at : at + _KEYS_PER_DELETION]
        bucket = _bucket_and_key(some[0])[0]
        keys = [_bucket_and_key(uri)[1] for uri in some]
        try:
            answer = client().delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
            left = {error.get("Key", "") for error in answer.get("Errors", [])}
        except ClientError as error:
            if error.response["Error"]["Code"] not in _NOT_IN_EVERY_STORE:
                raise
            left = set(keys)
        for uri, key in zip(some, keys, strict=True):
            if key in left:
                delete(uri)


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


class _View(io.RawIOBase):
    """A buffer as a file that botocore can send, and send again, without a copy of the whole."""

    def __init__(self, content: memoryview) -> None:
        self._content = content.cast("B")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._content)}
        self._position = origins[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        piece = self._content[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


def _stream(uri: str, start: int, stop: int | None, *, tag: str | None = None) -> Stream:
    from botocore.exceptions import IncompleteReadError  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    breaks = (*patience.broken_connections(), IncompleteReadError, HTTPError, OSError)
    fetch = functools.partial(_fetch, uri)
    return Stream(uri, fetch, breaks, start=start, stop=stop, tag=tag)


def _fetch(uri: str, start: int, stop: int | None, tag: str | None) -> Part:
    """Ask for a range; one that begins at or after the end is empty, as in a file."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    if stop == start:
        return _nothing(uri, start)
    bucket, key = _bucket_and_key(uri)
    asked = {"Bucket": bucket, "Key": key}
    if start or stop is not None:
        asked["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    if tag is not None:
        asked["IfMatch"] = f'"{tag}"'
    try:
        answer = client().get_object(**asked)  # type: ignore[arg-type]
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"InvalidRange", "416"}:
            raise
        return _nothing(uri, start)
    size_bytes, told = answer["ContentLength"], answer.get("ContentRange", "")
    fits = start == 0 and (stop is None or size_bytes <= stop)
    if told or not fits:  # 200 in place of 206 will do for the whole: of nothing there is no range
        size_bytes = _size_told(uri, asked.get("Range", "everything"), told)
    return Part(
        cast("Body", answer["Body"]),
        start=start,
        stop=size_bytes if stop is None else min(stop, size_bytes),
        size_bytes=size_bytes,
        tag=answer["ETag"].strip('"'),
    )


def _nothing(uri: str, start: int) -> Part:
    info = stat(uri)  # what is missing or refused is told, even when nothing is read of it
    return Part(io.BytesIO(), start=start, stop=start, size_bytes=info.size_bytes, tag=info.etag)


def _size_told(uri: str, asked: str, answered: str) -> int:
    """Return the object's size from ``bytes 5-9/100``, which must begin where it was asked to."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answered)
    if found is None or not asked.startswith(f"bytes={found[1]}-"):
        raise StorageError(
            f"{uri}: asked for {asked}, the store answered {answered or 'everything'!r}:"
            " it must support ranged requests (RFC 9110), perhaps a proxy between does not"
        )
    return int(found[2])


def _copy(stream: Stream, path: Path, offset: int) -> None:
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with path.open("r+b") as file:
        file.seek(offset)
        while count := stream.readinto(buffer):
            file.write(buffer[:count])


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, path = authority_and_path(uri)
    if not bucket:
        raise StorageError(f"{uri!r} names no bucket: expected s3://bucket/key")
    return bucket, path[1:]
