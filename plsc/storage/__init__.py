"""The one door to bytes: objects under ``s3://`` and files on disk behind the same few functions.

A *uri* is ``s3://bucket/key`` (``minio://`` means the same; KFP writes it), ``file:///path``, or a
plain path; inputs may also lie under ``hdfs://`` and ``webhdfs://``, which are never written. The
S3 endpoint and credentials come from the environment alone (``S3_ENDPOINT`` or
``AWS_ENDPOINT_URL_S3``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_DEFAULT_REGION``):
they are facts of the place where a process runs, and secrets belong in no parameter. So is
``S3_TIMEOUT_S`` (default 60), the seconds for which a store or an HDFS cluster may be silent.

Every write is atomic: a reader sees the old object, or the whole new one, never a part. A stage
therefore commits by writing its index last. A call that fails for a passing reason is made
``patience.TRIES`` times with growing pauses; a stream that breaks goes on from the place reached,
if the object is still the same. Lengths and CRCs are checked on the way; the indexes carry SHA-256
digests on top of that.
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
    open_seekable,
    read_bytes,
    read_range,
    read_range_into,
    sha256_of_file,
    stat,
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
    "open_seekable",
    "read_bytes",
    "read_range",
    "read_range_into",
    "sha256_of_file",
    "stat",
    "upload",
    "write_bytes",
]
