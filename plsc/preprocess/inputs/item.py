"""The words that all layouts share: an input is cut into items, and an item is read as rows."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import pydantic

from plsc.artifacts.index import Value
from plsc.artifacts.records import BadRowError
from plsc.storage import ObjectInfo

__all__ = ["BEGINNING_BYTES", "Input", "Item", "Row", "cuts"]

BEGINNING_BYTES = 120
"""So much of a bad row is kept for people to see."""


class Item(Value):
    """One piece of the input: all that a worker needs to read it, besides the store."""

    layout: str
    """A name of ``InputLayout``."""
    part: str
    """Name of the file below ``data_uri``; of class folders, the first file."""
    uri: str
    """Where ``part`` lies."""
    etag: str
    """Its tag when the item was planned."""
    start: int
    """Where the item begins: a byte, a row group, or a file, as the layout counts."""
    stop: int
    """Where the next one begins."""
    size_bytes: int
    """About how much input it is; for progress."""
    files: list[str] = pydantic.Field(default_factory=list)
    """Names of files below ``data_uri``, where the layout needs them."""
    columns: dict[str, str] = pydantic.Field(default_factory=dict)
    """What else the layout needs."""


class Row(NamedTuple):
    """What became of one row: a sample, a reason why it is none, or (neither) a blank row."""

    number: int
    """Counted from 1 within the item: lines, records, or files."""
    offset: int
    """Where it begins in the part: bytes (of decompressed content), or of tables, where these mean
    nothing, the number of rows before it in the file (told of bad rows alone, else 0)."""
    size_bytes: int
    """Bytes of input that it took; for progress."""
    image: bytes = b""
    """Of a sample: the encoded image."""
    label: int | bytes = 0
    """Of a sample: the class, or its name in UTF-8 when labels are names."""
    form: str = ""
    """Of a sample: the order of its columns, or the layout."""
    bad: BadRowError | None = None
    beginning: bytes = b""
    """Of a bad row: its first bytes, or the file's name."""
    uri: str = ""
    """The file, where every row is one of its own, so that the item's uri would not tell which."""


class Input(Protocol):
    """Rows to read, in items that can be read in any order."""

    layout: str
    """A name of ``InputLayout``."""
    files: dict[str, ObjectInfo]
    """Everything whose change makes another data set, by its name below ``data_uri``."""
    is_named: bool
    """Whether labels are names, to be numbered in sorted order; else they are integers."""

    def items(self, item_bytes: int) -> Iterator[Item]:
        """Yield pieces of about ``item_bytes`` >= 1, in the order of sorted part names.

        The same files give the same items, in whatever order they are listed.

        Raises:
            RecordError: If a file is not what its layout says.
            StorageError: If the store cannot be asked.
        """


def cuts(size: int, pieces: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of some ``pieces`` of ``size``: at least one, empty only if that is."""
    pieces = max(1, min(size, pieces))
    for piece in range(pieces):
        yield piece * size // pieces, (piece + 1) * size // pieces
