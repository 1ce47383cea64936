"""Compressed parts, read as streams: gzip of any number of members, and zstd of any of frames."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol, cast

import pyarrow as pa

from plsc import storage
from plsc.errors import RecordError

__all__ = ["SUFFIXES", "Stream", "open_stream"]

SUFFIXES = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd", ".tzst": "zstd"}
"""How the name of a compressed file ends, and its format."""


class _Reads(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Stream:
    """The content of one file, decompressed if its name says so, in pieces of bounded size."""

    def __init__(self, uri: str, reader: BinaryIO) -> None:
        """Take an open file; ``uri`` names it in errors and tells the format."""
        self._uri = uri
        self._form = next((f for suffix, f in SUFFIXES.items() if uri.endswith(suffix)), "")
        self._source = _Counted(reader)
        self._content = self._opened()
        self.num_read = 0
        """Bytes of content given so far."""

    @property
    def source_bytes(self) -> int:
        """Bytes of the file read so far."""
        return self._source.num_read

    def read(self, size: int = 1 << 20) -> bytes:
        """Return the next ``size`` bytes of content; fewer before the end, none at the end.

        Raises:
            RecordError: If the compressed file is cut off or damaged.
            StorageError: If reading fails on the way.
        """
        try:
            piece = self._content.read(size)
        except EOFError as error:
            raise self._cut_off() from error
        except (zlib.error, pa.ArrowException, OSError) as error:
            if not self._form or getattr(error, "errno", None) is not None:
                raise  # not of the decompressor, but of the file itself
            if "Truncated" in str(error):
                raise self._cut_off() from error
            raise RecordError(
                f"{self._uri}: expected a {self._form} stream, found damage within the first"
                f" {self.source_bytes} bytes ({error}): upload it again"
            ) from error
        if not piece and self._form and not self.source_bytes:
            raise self._cut_off()
        self.num_read += len(piece)
        return piece

    def _opened(self) -> _Reads:
        if self._form == "gzip":
            return gzip.GzipFile(fileobj=cast("BinaryIO", self._source))
        if self._form == "zstd":
            source = pa.PythonFile(self._source, mode="r")
            return cast("_Reads", pa.CompressedInputStream(source, "zstd"))
        return self._source

    def _cut_off(self) -> RecordError:
        return RecordError(
            f"{self._uri}: expected the end of the {self._form} stream, found end of file after"
            f" {self.source_bytes} bytes: upload it again"
        )


@contextmanager
def open_stream(uri: str) -> Iterator[Stream]:
    """Open a file from its beginning, to be decompressed if its name says so.

    Raises:
        StorageError: If it is missing or refused.
    """
    with storage.open_reader(uri) as reader:
        yield Stream(uri, reader)


class _Counted:
    """A file that counts what is read of it (and has what gzip and pyarrow look for)."""

    closed = False

    def __init__(self, reader: BinaryIO) -> None:
        self._reader = reader
        self.num_read = 0

    def read(self, size: int = -1, /) -> bytes:
        piece = self._reader.read(size)
        self.num_read += len(piece)
        return piece

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Leave the file to its owner."""
