"""The header of a Parquet page, of which the metadata does not tell what memory needs to know."""

from itertools import count

__all__ = ["PAGE_HEADER_BYTES", "dictionary_page_bytes"]

PAGE_HEADER_BYTES = 12
"""What ``dictionary_page_bytes`` looks at, at most: two fields of 1 + 5 bytes."""

_INT32_NEXT = 0x15
"""Thrift's compact protocol: the next field in order, an int32."""
_DICTIONARY_PAGE = 2


def dictionary_page_bytes(header: bytes) -> int:
    """Return the size of a page, decompressed, if it is a dictionary; else 0.

    No value in the dictionary is longer, however often rows name it.

    Args:
        header: Bytes from the page's beginning; the first fields are its type and that size.
    """
    kind, rest = _int32(header)
    size, _ = _int32(rest)
    return max(0, size) if kind == _DICTIONARY_PAGE else 0


def _int32(content: bytes) -> tuple[int, bytes]:
    """Return the number that ``content`` begins with as a field, and what follows; -1 if none."""
    if content[:1] != bytes([_INT32_NEXT]):
        return -1, b""
    number = 0
    for place, byte in zip(count(), content[1:6]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number >> 1 ^ -(number & 1), content[place + 2 :]
    return -1, b""
