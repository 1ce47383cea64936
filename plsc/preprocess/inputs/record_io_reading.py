"""Reading RecordIO: records where the index says, or one after the other without an index."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from plsc import storage
from plsc.artifacts.records import LINE_LIMIT_BYTES, BadRowError, Reason
from plsc.errors import RecordError
from plsc.preprocess.inputs.item import BEGINNING_BYTES, Item, Row
from plsc.preprocess.inputs.judge import Judge
from plsc.preprocess.inputs.record_io_format import (
    MAGIC,
    parse_image_record,
    take_record,
    whole_label,
)

__all__ = ["read"]

_BLOCK_BYTES = 1 << 20
_LONGEST = LINE_LIMIT_BYTES + _BLOCK_BYTES
"""No record that is good, with all its chunks, is longer."""

_Found = tuple[int, int, bytes | BadRowError]
"""Where a record begins, bytes to the next, and its content or what is wrong with it."""


def read(item: Item, judge: Judge) -> Iterator[Row]:
    """Yield what became of every record of ``item``; those that only name ranges are blank.

    Raises:
        RecordError: If the part is shorter than when the item was planned.
        StorageError: If reading fails on the way.
    """
    found = _listed(item) if "offsets" in item.columns else _in_sequence(item)
    for number, (offset, size_bytes, content) in enumerate(found, 1):
        try:
            if isinstance(content, BadRowError):
                raise content
            record = parse_image_record(content)
            if record.is_range:
                yield Row(number, offset, size_bytes)
                continue
            label = judge.integer(whole_label(record.labels))
            judge.image(record.image)
        except BadRowError as bad:
            beginning = content[:BEGINNING_BYTES] if isinstance(content, bytes) else b""
            yield Row(number, offset, size_bytes, bad=bad, beginning=beginning)
            continue
        yield Row(number, offset, size_bytes, record.image, label, item.layout)


def _listed(item: Item) -> Iterator[_Found]:
    """Yield the records that begin at the item's offsets."""
    offsets = np.cumsum(np.array(item.columns["offsets"].split(), np.int64)).tolist()
    part_bytes = int(item.columns["part_bytes"])
    with storage.open_reader(item.uri, start=item.start, stop=item.stop) as reader:
        for offset, end in zip(offsets, [*offsets[1:], item.stop], strict=True):
            size_bytes = min(end, part_bytes) - offset
            if size_bytes <= 0:
                what = f"the index names offset {offset}, and the part ends at {part_bytes}"
                yield offset, 0, BadRowError(Reason.DAMAGED_RECORD, what)
                continue
            content = reader.read(min(size_bytes, _LONGEST))
            left = size_bytes - len(content)
            while left and (passed := reader.read(min(left, _BLOCK_BYTES))):
                left -= len(passed)
            if left:
                raise _changed(item)
            yield offset, size_bytes, _take(content)


def _take(content: bytes) -> bytes | BadRowError:
    try:
        taken = take_record(content)
    except BadRowError as bad:
        return bad
    if taken is None:
        return BadRowError(
            Reason.DAMAGED_RECORD,
            f"its length reaches over the {len(content)} bytes to the next record or the end",
        )
    return taken[0]


def _in_sequence(item: Item) -> Iterator[_Found]:
    """Yield every record; after damage, go on where the next could begin."""
    with storage.open_reader(item.uri, stop=item.stop) as reader:
        window = _Window(reader)
        while window.has_more():
            offset = window.offset
            try:
                while (taken := take_record(window.content, window.at)) is None:
                    if not window.extend():
                        raise BadRowError(
                            Reason.DAMAGED_RECORD, "the part ends before this record does"
                        )
            except BadRowError as bad:
                window.pass_to_magic()
                yield offset, window.offset - offset, bad
            else:
                content, window.at = taken
                yield offset, window.offset - offset, content
        if window.offset < item.stop:
            raise _changed(item)


class _Window:
    """A piece of a file that moves on; nothing behind ``at`` is kept."""

    def __init__(self, reader: BinaryIO) -> None:
        self.content = b""
        self.at = 0
        self._begin = 0
        self._reader = reader

    @property
    def offset(self) -> int:
        """Where ``at`` is in the file."""
        return self._begin + self.at

    def has_more(self) -> bool:
        return self.at < len(self.content) or self.extend()

    def extend(self) -> bool:
        """Read on, and return whether there was more."""
        more = self._reader.read(max(_BLOCK_BYTES, len(self.content) - self.at))
        if not more:
            return False
        self._begin, self.content, self.at = self.offset, (self.content + more)[self.at :], 0
        return True

    def pass_to_magic(self) -> None:
        """Go to the next aligned magic behind ``at``, or to the end."""
        self.at += 1
        while True:
            found = self.content.find(MAGIC, self.at)
            while found >= 0 and (self._begin + found) % 4:
                found = self.content.find(MAGIC, found + 1)
            if found >= 0:
                self.at = found
                return
            self.at = max(self.at, len(self.content) - len(MAGIC) + 1)
            if not self.extend():
                self.at = len(self.content)
                return


def _changed(item: Item) -> RecordError:
    return RecordError(
        f"{item.uri}: expected {item.columns['part_bytes']} bytes, found fewer: the part changed"
        " while it was read: run preprocess again"
    )
