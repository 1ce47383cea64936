"""The bytes of RecordIO as InsightFace packs images in it, parsed with limits.

A ``.rec`` file is dmlc-core's recordio: records follow each other, each of one or more *chunks*, in
little endian::

    uint32 magic 0xced7230a | uint32 (kind << 29 | length) | length bytes | zeros to align

Content that holds the magic (aligned to 4 bytes) is cut there, and the magic left out, so that it
stands only where chunks begin. ``kind`` is 0 for a whole record; 1, 2, 3 for the first, a middle
and the last chunk. The content is an image record::

    uint32 flag | float32 label | uint64 id | uint64 id2 | flag x float32 labels | encoded image

With ``flag`` > 0 the labels follow the header, and the first of them is the class.
"""

import struct
from typing import NamedTuple

from plsc.artifacts.records import LINE_LIMIT_BYTES, BadRowError, Reason

__all__ = ["MAGIC", "ImageRecord", "parse_image_record", "take_record", "whole_label"]

MAGIC = struct.pack("<I", 0xCED7230A)

_CHUNK = struct.Struct("<4sI")
_HEADER = struct.Struct("<IfQQ")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_INEXACT = 2**24
"""From here on, float32 does not hold every integer."""


class ImageRecord(NamedTuple):
    """What one record holds."""

    labels: tuple[float, ...]
    image: bytes

    @property
    def is_range(self) -> bool:
        """Whether it is no image but names a range of keys: the set's header, or an identity."""
        return len(self.labels) == 2 and not self.image


def take_record(content: bytes, at: int = 0) -> tuple[bytes, int] | None:
    """Return the record that begins at ``at`` and where the next one does; None if more is needed.

    Raises:
        BadRowError: If none begins there, it is damaged, or longer than ``LINE_LIMIT_BYTES``.
    """
    pieces: list[bytes] = []
    num_bytes = 0
    while True:
        if len(content) < at + _CHUNK.size:
            return None
        magic, word = _CHUNK.unpack_from(content, at)
        kind, length = word >> 29, word & (1 << 29) - 1
        expected = (_MIDDLE, _LAST) if pieces else (_WHOLE, _FIRST)
        if magic != MAGIC or kind not in expected:
            raise _damaged(f"no record begins where one should (found {magic.hex()}, kind {kind})")
        num_bytes += length + (len(MAGIC) if pieces else 0)
        if num_bytes > LINE_LIMIT_BYTES:
            raise BadRowError(
                Reason.TOO_LONG, f"{num_bytes} bytes are more than the {LINE_LIMIT_BYTES} allowed"
            )
        begin = at + _CHUNK.size
        at = begin + length
        if len(content) < at:
            return None
        pieces.append(content[begin:at])
        if _holds_magic(pieces[-1]):
            raise _damaged(f"the length of {length} bytes reaches over the next record")
        at += -length % 4
        if kind in {_WHOLE, _LAST}:
            return MAGIC.join(pieces), at


def parse_image_record(content: bytes) -> ImageRecord:
    """Return what the content of a record holds.

    Raises:
        BadRowError: If it is shorter than its header says.
    """
    if len(content) < _HEADER.size:
        raise _damaged(f"{len(content)} bytes are less than the {_HEADER.size} of a header")
    flag, label, _, _ = _HEADER.unpack_from(content)
    end = _HEADER.size + 4 * flag
    if len(content) < end:
        raise _damaged(f"{flag} labels do not fit its {len(content)} bytes")
    labels = struct.unpack_from(f"<{flag}f", content, _HEADER.size) if flag else (label,)
    return ImageRecord(labels, content[end:])


def whole_label(labels: tuple[float, ...]) -> int:
    """Return the class, the first label.

    Raises:
        BadRowError: If it is no whole number, or too large for float32 to tell it from others.
    """
    label = labels[0]
    if not label.is_integer():  # infinities and NaN are none
        raise BadRowError(Reason.NOT_AN_INTEGER, f"the label is not an integer: {label!r}")
    if abs(label) >= _INEXACT:
        raise BadRowError(
            Reason.INEXACT,
            f"label {int(label)} is stored as float32, which cannot tell it from its neighbors from"
            f" {_INEXACT} on: write the set in another layout",
        )
    return int(label)


def _holds_magic(piece: bytes) -> bool:
    found = piece.find(MAGIC)
    while found >= 0:
        if found % 4 == 0:
            return True
        found = piece.find(MAGIC, found + 1)
    return False


def _damaged(what: str) -> BadRowError:
    return BadRowError(Reason.DAMAGED_RECORD, what)
