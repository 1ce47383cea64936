"""What both stores tell of an object."""

from dataclasses import dataclass

__all__ = ["ObjectInfo"]


@dataclass(frozen=True)
class ObjectInfo:
    """One object or file: its uri, its size, and a tag that changes when its content does."""

    uri: str
    size_bytes: int
    etag: str
