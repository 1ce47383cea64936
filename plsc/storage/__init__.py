"""The one door to bytes: objects under ``s3://`` and files on disk behind the same few functions.

A *uri* is ``s3://bucket/key`` (``minio://`` means the same; KFP writes it), ``file:///path``, or a
plain path. The S3 endpoint and credentials come from the environment alone (``S3_ENDPOINT`` or
``AWS_ENDPOINT_URL_S3``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_DEFAULT_REGION``):
they are facts of the place where a process runs, and secrets belong in no parameter.

Every write is atomic: a reader sees the old object, or the whole new one, never a part. A stage
therefore commits by writing its index last. botocore retries with backoff and checks CRCs on both
ways; the indexes carry SHA-256 digests on top of that.
"""

from plsc.storage.objects import (
    ObjectInfo,
    delete,
    delete_prefix,
    download,
    ensure_bucket,
    exists,
    is_remote,
    join,
    list_objects,
    open_reader,
    read_bytes,
    sha256_of_file,
    upload,
    write_bytes,
)

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
