"""Uris, taken apart to the letter: ``?``, ``#``, tabs and line ends are characters of a name.

``urllib`` is of no use here: it drops some of them and takes others for the end of the path, and
then it is another object that is read, or deleted.
"""

from plsc.errors import StorageError

__all__ = ["authority_and_path", "path_on_disk", "scheme_of"]

_SCHEMES = ("s3", "minio", "hdfs", "webhdfs", "file")


def scheme_of(uri: str) -> str:
    """Return ``s3``, ``minio``, ``hdfs``, ``webhdfs``, ``file``, or another; "" is a plain path."""
    scheme, colon, rest = uri.partition(":")
    is_known = bool(colon) and scheme.lower() in _SCHEMES  # without slashes it is a slip, no path
    return scheme.lower() if is_known or rest.startswith("//") else ""


def authority_and_path(uri: str) -> tuple[str, str]:
    """Split ``scheme://authority/path``; the path has its first slash, or is empty."""
    _, slashes, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    return (authority, slash + path) if slashes else ("", uri.partition(":")[2])


def path_on_disk(uri: str) -> str:
    """Return the path of a plain path or of ``file:///path``.

    Raises:
        StorageError: If the scheme is none of a disk, or the uri names another machine.
    """
    scheme = scheme_of(uri)
    if not scheme:
        return uri
    if scheme != "file":
        raise StorageError(
            f"{uri!r} has the unknown scheme {scheme!r}:"
            " expected s3://, minio://, file:// or a path, or for inputs hdfs:// or webhdfs://"
        )
    authority, path = authority_and_path(uri)
    if authority not in ("", "localhost") or not path:
        raise StorageError(f"{uri!r} names no file of this machine: expected file:///path")
    return path
