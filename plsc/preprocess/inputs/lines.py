"""Lines of a part that is cut into byte ranges: each belongs to the range in which it begins.

This is the hot path of preprocess: lines are found in C, and nothing is made per line besides its
bytes and one tuple.
"""

import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from plsc import storage
from plsc.artifacts.records import LINE_LIMIT_BYTES
from plsc.errors import RecordError
from plsc.preprocess.inputs.item import BEGINNING_BYTES

__all__ = ["Line", "blocks_of", "lines_of", "split"]

_LF = ord("\n")
_BLOCK_BYTES = 1 << 20
_AHEAD_BYTES = 64 << 10
"""So much is read past the end of a range, where its last line most likely ends."""


class Line(NamedTuple):
    """One line, whole or too long."""

    offset: int
    """Of its first byte."""
    size_bytes: int
    row: bytes
    """Its bytes with its end; of a line that is too long, the beginning."""
    is_whole: bool


def lines_of(
    uri: str, *, start: int, stop: int, part_bytes: int, limit_bytes: int = LINE_LIMIT_BYTES
) -> Iterator[Line]:
    """Yield the lines of ``uri`` that begin in [start, stop), the last one to its end.

    Raises:
        RecordError: If the part is shorter than ``part_bytes``.
        StorageError: If reading fails on the way.
    """
    blocks = blocks_of(uri, start=max(0, start - 1), stop=stop, part_bytes=part_bytes)
    return split(blocks, start=start, stop=stop, limit_bytes=limit_bytes)


def blocks_of(uri: str, *, start: int, stop: int, part_bytes: int) -> Iterator[bytes]:
    """Yield the bytes from ``start`` on, to ``part_bytes`` if the caller wants to go past ``stop``.

    Beyond ``stop`` and a little more, pieces are asked for as needed, each twice as large.

    Raises:
        RecordError: If the part is shorter than ``part_bytes``.
        StorageError: If reading fails on the way.
    """
    begin, end, ahead = start, min(stop + _AHEAD_BYTES, part_bytes), _BLOCK_BYTES
    while begin < end:
        with storage.open_reader(uri, start=begin, stop=end) as reader:
            while begin < end and (block := reader.read(min(_BLOCK_BYTES, end - begin))):
                begin += len(block)
                yield block
        if begin < end:
            raise RecordError(
                f"{uri}: expected {part_bytes} bytes, found the end after {begin}: the part changed"
                " while it was read: run preprocess again"
            )
        end, ahead = min(end + ahead, part_bytes), ahead * 2


def split(
    blocks: Iterable[bytes], *, start: int = 0, stop: int | None = None, limit_bytes: int
) -> Iterator[Line]:
    """Yield the lines that begin in [start, stop).

    Args:
        blocks: Content from the byte before ``start`` on (from 0 if ``start`` is 0): that byte
            tells whether a line begins at ``start``.
        start: First byte that may begin a line of this range.
        stop: First byte that may not; None: the end.
        limit_bytes: Of lines that are longer, with their end, only the beginning is kept in memory.
    """
    end = float("inf") if stop is None else stop
    offset = max(0, start - 1)
    held = _Held(limit_bytes, offset, is_ours=False) if start else None
    for block in blocks:
        pieces = io.BytesIO(block)  # finds line ends by memchr; bytes.split looks at every byte
        if held is not None:
            held.add(next(pieces, b""))
            offset = held.offset + held.num_bytes
            if held.is_complete:
                yield from held.lines()
                held = None
        for row in pieces:
            if offset >= end:
                return
            size_bytes = len(row)
            is_whole = size_bytes <= limit_bytes
            if row[-1] == _LF:
                yield Line(offset, size_bytes, row if is_whole else row[:BEGINNING_BYTES], is_whole)
            else:
                held = _Held(limit_bytes, offset, is_ours=True)
                held.add(row)
            offset += size_bytes
        if offset >= end and not (held is not None and held.is_ours):
            return  # no line of this range is left, or it lies inside one that began before
    if held is not None:
        yield from held.lines()


class _Held:
    """A line whose end has not come yet."""

    def __init__(self, limit_bytes: int, offset: int, *, is_ours: bool) -> None:
        self.offset = offset
        self.is_ours = is_ours
        """Whether it begins in the range; else it is only passed over."""
        self.is_complete = False
        self.num_bytes = 0
        self._limit_bytes = limit_bytes
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Add the next piece, keeping no more than the beginning of what is no good anyway."""
        self.num_bytes += len(piece)
        self.is_complete = piece.endswith(b"\n")
        if not self.is_ours:
            return
        self._pieces.append(piece)
        if self.num_bytes > self._limit_bytes:
            self._pieces = [b"".join(self._pieces)[:BEGINNING_BYTES]]

    def lines(self) -> Iterator[Line]:
        """Yield the line made of the pieces, if it is one of this range."""
        if self.is_ours and self.num_bytes:
            is_whole = self.num_bytes <= self._limit_bytes
            yield Line(self.offset, self.num_bytes, b"".join(self._pieces), is_whole)
