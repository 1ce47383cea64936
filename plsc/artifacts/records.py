"""Records: the lines ``base64 TAB label`` in which images reach preprocess from outside.

A *part* is a file of rows that end in LF or CRLF; a row is two columns with one TAB between: an
image (JPEG, PNG, BMP or WebP) as standard base64, and its label as a decimal integer or a name::

    /9j/4AAQSkZJRgABAQ...TAB17

Both column orders are in use (the seed's documentation says image first, its tool reads label
first), so both are read; ``to_line`` writes image first. Rows of blanks alone mean nothing and are
skipped. A row that cannot be used is *bad*, for one ``Reason``; it never ends the reading. The
reasons serve all other layouts of the input as well.
"""

from enum import StrEnum
from typing import NamedTuple

import pybase64

from plsc.conf.choices import ColumnOrder

__all__ = [
    "LABEL_LIMIT_BYTES",
    "LINE_LIMIT_BYTES",
    "BadRowError",
    "Reason",
    "Record",
    "decode_image",
    "parse_label",
    "split_columns",
    "to_line",
]

LINE_LIMIT_BYTES = 32 * 1024 * 1024
"""A longer row (with its end), or in other layouts a longer image, is bad and never held whole."""
LABEL_LIMIT_BYTES = 1024
"""A longer name is a bad row."""

_LARGEST_LABEL = 2**63 - 1
_BASE64_BEGINNINGS = (b"/9j/", b"iVBORw0KGgo", b"Qk", b"UklGR")


class Reason(StrEnum):
    """Why a row is bad."""

    TOO_LONG = "too_long"
    """The row, or its image, is longer than ``LINE_LIMIT_BYTES``."""
    COLUMNS = "columns"
    """There are not two columns."""
    COLUMN_ORDER = "column_order"
    """The row does not tell which column holds the image."""
    MISSING = "missing"
    """The image or the label of a sample is not there, or there are two (not in records)."""
    NOT_AN_INTEGER = "label_not_an_integer"
    NEGATIVE = "label_negative"
    OVERFLOW = "label_overflow"
    """The label does not fit a signed 64-bit integer."""
    INEXACT = "label_inexact"
    """The label was stored as a float32 too large to hold every integer (only in RecordIO)."""
    TOO_LARGE = "label_too_large"
    """The label is not below the number of classes."""
    EMPTY_NAME = "label_empty"
    LONG_NAME = "label_too_long"
    """The name is longer than ``LABEL_LIMIT_BYTES``."""
    NOT_UTF8 = "label_not_utf8"
    CONTROL = "label_control_character"
    BASE64 = "base64"
    """The image column is not base64."""
    NOT_AN_IMAGE = "not_an_image"
    """The bytes do not begin as a JPEG, PNG, BMP or WebP does."""
    DAMAGED_IMAGE = "damaged_image"
    """They do, but cannot be decoded: a damaged header, damaged or missing pixels."""
    DIMENSIONS = "dimensions"
    """Height or width is not the configured image size."""
    NO_FILE = "no_file"
    """The row names an image file that is not there (only of image files)."""
    DAMAGED_RECORD = "damaged_record"
    """There is no whole record where one should be (only in RecordIO)."""


class BadRowError(ValueError):
    """A row that cannot be used: ``reason`` for counting, the message for people."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["BadRowError"], tuple[Reason, str]]:
        return BadRowError, (self.reason, str(self))


class Record(NamedTuple):
    """One good row."""

    image: bytes
    """The encoded image."""
    label: int | bytes
    """The class, or its name in UTF-8."""


def to_line(record: Record) -> bytes:
    """Return ``record`` as a line, image first."""
    label = record.label if isinstance(record.label, bytes) else b"%d" % record.label
    return b"%s\t%s\n" % (pybase64.b64encode(record.image), label)


def split_columns(
    row: bytes, column_order: ColumnOrder, *, is_named: bool = False
) -> tuple[bytes, bytes, ColumnOrder]:
    """Return the base64 text and the label of a row that is not blank, and their order in it.

    With ``auto`` a row tells its own order: the column that is an integer is the label (unless
    labels are names); if that is not clear, the one that begins as an image does is the image. No
    other row is asked, so that parts can be cut anywhere, may mix both orders, and a bad row gets
    the reason that fits.

    Args:
        row: The line, with or without its end.
        column_order: The order, or ``auto``.
        is_named: Whether labels are names.

    Raises:
        BadRowError: If there are not two columns, or if their order is not clear.
    """
    tab = row.find(b"\t")  # by memchr, where bytes.split looks at every byte
    if tab < 0 or row.find(b"\t", tab + 1) >= 0:
        num_columns = row.count(b"\t") + 1
        raise BadRowError(
            Reason.COLUMNS, f"expected 2 columns with a TAB between, found {num_columns}"
        )
    first, second = row[:tab].strip(), row[tab + 1 :].strip()
    order: ColumnOrder | None = column_order
    if column_order is ColumnOrder.auto:
        order = None if is_named else _order(_is_integer(second), _is_integer(first))
        order = order or _order(_is_image(first), _is_image(second))
    if order is None:
        raise BadRowError(
            Reason.COLUMN_ORDER,
            "it is not clear which column is the image: set preprocess.column_order",
        )
    if order is ColumnOrder.image_label:
        return first, second, order
    return second, first, order


def _is_integer(text: bytes) -> bool:
    return text.isdigit() or (text[:1] in {b"+", b"-"} and text[1:].isdigit())


def _is_image(text: bytes) -> bool:
    return text.startswith(_BASE64_BEGINNINGS)


def _order(image_first: bool, label_first: bool) -> ColumnOrder | None:  # noqa: FBT001
    if image_first == label_first:
        return None
    return ColumnOrder.image_label if image_first else ColumnOrder.label_image


def decode_image(text: bytes) -> bytes:
    """Return the image that is written as base64.

    Raises:
        BadRowError: If it is not base64.
    """
    try:
        image: bytes = pybase64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error is one
        raise BadRowError(Reason.BASE64, f"the image is not base64: {error}") from error
    return image


def parse_label(text: bytes, *, num_classes: int = 0) -> int:
    """Return the label that ``text`` spells, blanks around it allowed.

    Args:
        text: A decimal integer.
        num_classes: Labels must be below; 0: any that fits 64 bits will do.

    Raises:
        BadRowError: If it is no integer, negative, or too large.
    """
    text = text.strip()
    if len(text) < 19 and text.isdigit():  # nearly always
        return _checked(int(text), num_classes)
    if not _is_integer(text):
        found = repr(text[:40].decode("ascii", "backslashreplace"))
        raise BadRowError(Reason.NOT_AN_INTEGER, f"the label is not an integer: {found}")
    digits = text.lstrip(b"+-0")
    if text.startswith(b"-") and digits:
        raise BadRowError(Reason.NEGATIVE, f"the label is negative: {text[:40].decode()}")
    if len(digits) > 19 or int(digits or b"0") > _LARGEST_LABEL:
        raise BadRowError(Reason.OVERFLOW, f"the label is larger than {_LARGEST_LABEL}")
    return _checked(int(digits or b"0"), num_classes)


def _checked(label: int, num_classes: int) -> int:
    if num_classes and label >= num_classes:
        raise BadRowError(
            Reason.TOO_LARGE, f"label {label} is not below the number of classes, {num_classes}"
        )
    return label
