"""Records: the lines ``base64 TAB label`` in which images reach preprocess from outside.

A *part* is a file of rows that end in LF or CRLF; a row is two columns with one TAB between: an
image (JPEG, PNG, BMP or WebP) as standard base64, and its label as a decimal integer::

    /9j/4AAQSkZJRgABAQ...TAB17

Both column orders are in use (the seed's documentation says image first, its tool reads label
first), so both are read; ``to_line`` writes image first. Rows of blanks alone mean nothing and are
skipped. A row that cannot be used is *bad*, for one ``Reason``; it never ends the reading.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import BinaryIO, NamedTuple

import pybase64

from plsc.conf.schema import ColumnOrder
from plsc.transforms import NotAnImageError, decode, image_dimensions

__all__ = [
    "LINE_LIMIT_BYTES",
    "BadRowError",
    "Line",
    "Reason",
    "Record",
    "RecordParser",
    "check_image",
    "parse_label",
    "read_lines",
    "to_line",
]

LINE_LIMIT_BYTES = 32 * 1024 * 1024
"""A longer row is bad, and only its beginning is kept in memory."""

_LARGEST_LABEL = 2**63 - 1
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_BASE64_BEGINNINGS = (b"/9j/", b"iVBORw0KGgo", b"Qk", b"UklGR")
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF")


class Reason(StrEnum):
    """Why a row is bad."""

    TOO_LONG = "too_long"
    """The row is longer than ``LINE_LIMIT_BYTES``."""
    COLUMNS = "columns"
    """There are not two columns."""
    COLUMN_ORDER = "column_order"
    """Neither the row nor those before it tell which column holds the image."""
    NOT_AN_INTEGER = "label_not_an_integer"
    NEGATIVE = "label_negative"
    OVERFLOW = "label_overflow"
    """The label does not fit a signed 64-bit integer."""
    TOO_LARGE = "label_too_large"
    """The label is not below the number of classes."""
    BASE64 = "base64"
    """The image column is not base64."""
    NOT_AN_IMAGE = "not_an_image"
    """The bytes do not begin as a JPEG, PNG, BMP or WebP does."""
    DAMAGED_IMAGE = "damaged_image"
    """They do, but cannot be decoded: a damaged header, damaged or missing pixels."""
    DIMENSIONS = "dimensions"
    """Height or width is not the configured image size."""
    NO_FILE = "no_file"
    """The row names an image file that is not there (only in ``label.txt``)."""


class BadRowError(ValueError):
    """A row that cannot be used: ``reason`` for counting, the message for people."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Record(NamedTuple):
    """One good row."""

    image: bytes
    """The encoded image."""
    label: int


class Line(NamedTuple):
    """One line of a part, good or bad."""

    number: int
    """Counted from 1."""
    start: int
    """Offset in bytes of its first byte."""
    end: int
    """Offset of the first byte of the next line."""
    row: bytes
    """Its content without the line's end; of a line that is too long, the beginning."""
    is_whole: bool
    """Whether ``row`` is all of it."""


def to_line(record: Record) -> bytes:
    """Return ``record`` as a line, image first."""
    return b"%s\t%d\n" % (pybase64.b64encode(record.image), record.label)


def read_lines(reader: BinaryIO, *, limit_bytes: int = LINE_LIMIT_BYTES) -> Iterator[Line]:
    """Yield every line of ``reader``, holding at most ``limit_bytes`` of one in memory.

    Raises:
        StorageError: If reading fails on the way.
    """
    number = end = 0
    while piece := reader.readline(limit_bytes):
        number, start, end = number + 1, end, end + len(piece)
        row, is_whole = piece.rstrip(b"\r\n"), True
        while len(piece) == limit_bytes and not piece.endswith(b"\n"):
            piece = reader.readline(limit_bytes)
            end += len(piece)
            is_whole = is_whole and not piece.strip(b"\r\n")
        yield Line(number, start, end, row, is_whole)


class RecordParser:
    """Turns the rows of one part into records, telling the order of their columns if it must.

    With ``auto`` a row tells its own order: the column that is an integer is the label; if that is
    not clear, the one that begins as an image does is the image; if that is not clear either, the
    order is that of the part's first good row. So a part that mixes both orders is read correctly,
    and a bad row gets the reason that fits.
    """

    def __init__(self, column_order: ColumnOrder, *, image_size: int, num_classes: int = 0) -> None:
        """Take what the rows must be.

        Args:
            column_order: The order, or ``auto``.
            image_size: Height and width that every image must have, in pixels.
            num_classes: Labels must be below; 0: any label will do.
        """
        self._given = None if column_order is ColumnOrder.auto else column_order
        self._first: ColumnOrder | None = None
        self._image_size = image_size
        self._num_classes = num_classes

    def parse(self, row: bytes) -> tuple[Record, ColumnOrder]:
        """Return the record of a row that is not blank, and the order of its columns.

        Raises:
            BadRowError: If it is bad.
        """
        columns = row.split(b"\t")
        if len(columns) != 2:
            raise BadRowError(
                Reason.COLUMNS, f"expected 2 columns with a TAB between, found {len(columns)}"
            )
        first, second = columns[0].strip(), columns[1].strip()
        order = self._given or _evident_order(first, second) or self._first
        if order is None:
            raise BadRowError(
                Reason.COLUMN_ORDER,
                "it is not clear which column is the image: set preprocess.column_order",
            )
        text, label_text = (first, second) if order is ColumnOrder.image_label else (second, first)
        label = parse_label(label_text, num_classes=self._num_classes)
        try:
            image = pybase64.b64decode(text, validate=True)
        except ValueError as error:  # binascii.Error is one
            raise BadRowError(Reason.BASE64, f"the image is not base64: {error}") from error
        check_image(image, image_size=self._image_size)
        self._first = self._first or order
        return Record(image, label), order


def _evident_order(first: bytes, second: bytes) -> ColumnOrder | None:
    is_label = bool(_INTEGER.fullmatch(first)), bool(_INTEGER.fullmatch(second))
    is_image = first.startswith(_BASE64_BEGINNINGS), second.startswith(_BASE64_BEGINNINGS)
    for image_first, label_first in (is_label[::-1], is_image):
        if image_first != label_first:
            return ColumnOrder.image_label if image_first else ColumnOrder.label_image
    return None


def parse_label(text: bytes, *, num_classes: int = 0) -> int:
    """Return the label that ``text`` spells, blanks around it allowed.

    Args:
        text: A decimal integer.
        num_classes: Labels must be below; 0: any that fits 64 bits will do.

    Raises:
        BadRowError: If it is no integer, negative, or too large.
    """
    text = text.strip()
    if not _INTEGER.fullmatch(text):
        found = repr(text[:40].decode("ascii", "backslashreplace"))
        raise BadRowError(Reason.NOT_AN_INTEGER, f"the label is not an integer: {found}")
    digits = text.lstrip(b"+-0")
    if text.startswith(b"-") and digits:
        raise BadRowError(Reason.NEGATIVE, f"the label is negative: {text[:40].decode()}")
    if len(digits) > 19 or int(digits or b"0") > _LARGEST_LABEL:
        raise BadRowError(Reason.OVERFLOW, f"the label is larger than {_LARGEST_LABEL}")
    label = int(digits or b"0")
    if num_classes and label >= num_classes:
        raise BadRowError(
            Reason.TOO_LARGE, f"label {label} is not below the number of classes, {num_classes}"
        )
    return label


def check_image(image: bytes, *, image_size: int) -> None:
    """Check that ``image`` decodes completely to ``image_size`` x ``image_size`` pixels.

    Decoding costs most of the time (60 us at 112 x 112), and it is what keeps training from meeting
    an image that it cannot read.

    Raises:
        BadRowError: If it does not.
    """
    if not image.startswith(_BEGINNINGS):
        raise BadRowError(Reason.NOT_AN_IMAGE, f"{len(image)} bytes that are no known image format")
    try:
        height, width = image_dimensions(image)
        if (height, width) != (image_size, image_size):
            raise BadRowError(
                Reason.DIMENSIONS,
                f"expected {image_size} x {image_size} pixels, found {width} x {height}",
            )
        decode(image)
    except NotAnImageError as error:
        raise BadRowError(Reason.DAMAGED_IMAGE, str(error)) from error
