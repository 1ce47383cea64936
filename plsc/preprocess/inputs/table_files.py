"""Parquet and Arrow files: their schema, their pieces, and batches of rows of bounded size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from plsc import storage
from plsc.errors import RecordError

__all__ = ["SUFFIXES", "TableFile", "open_table"]

SUFFIXES = (".parquet", ".arrow", ".feather")

_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 1024
_BUFFER_BYTES = 4 << 20
_ARROW_FILE = b"ARROW1"
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class TableFile(Protocol):
    """An open table."""

    schema: pa.Schema

    def piece_bytes(self, columns: Sequence[str]) -> list[int]:
        """Return about how many bytes ``columns`` take in each piece that can be read alone."""

    def batches(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the pieces [start, stop), of ``columns``, in order."""


@contextmanager
def open_table(uri: str) -> Iterator[TableFile]:
    """Open a table; what is wrong with it, now or while it is read, becomes a RecordError.

    Raises:
        RecordError: If the file is cut off, damaged, or of another format.
        StorageError: If reading fails on the way.
    """
    with storage.open_seekable(uri) as reader:
        try:
            yield _opened(uri, reader)
        except (pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise  # not what the file holds, but the file itself
            raise RecordError(
                f"{uri}: expected a Parquet or Arrow file, found damage: {error}: upload it again"
            ) from error


def _opened(uri: str, reader: BinaryIO) -> TableFile:
    if uri.endswith(".parquet"):
        return _Parquet(reader)
    beginning = reader.read(len(_ARROW_FILE))
    size_bytes = reader.seek(0, 2)
    if beginning == _ARROW_FILE:
        reader.seek(0)
        return _ArrowFile(reader, size_bytes)
    reader.seek(max(0, size_bytes - len(_END_OF_STREAM)))
    if reader.read() != _END_OF_STREAM:
        raise pa.ArrowInvalid("no Arrow file, and no Arrow stream with its end")
    reader.seek(0)
    return _ArrowStream(reader, size_bytes)


class _Parquet:
    """Its pieces are row groups; they are read page by page, not as a whole."""

    def __init__(self, reader: BinaryIO) -> None:
        self._file = pq.ParquetFile(reader, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        self.schema = self._file.schema_arrow

    def piece_bytes(self, columns: Sequence[str]) -> list[int]:
        metadata = self._file.metadata
        sizes = []
        for group in range(metadata.num_row_groups):
            chunks = map(metadata.row_group(group).column, range(metadata.num_columns))
            sizes.append(
                sum(
                    chunk.total_compressed_size
                    for chunk in chunks
                    if chunk.path_in_schema.partition(".")[0] in columns
                )
            )
        return sizes

    def batches(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for group in range(start, stop):
            about = self._file.metadata.row_group(group)
            row_bytes = about.total_byte_size // max(1, about.num_rows) + 1
            yield from self._file.iter_batches(
                batch_size=max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes)),
                row_groups=[group],
                columns=list(columns),
                use_threads=False,
            )


class _ArrowFile:
    """Its pieces are record batches."""

    def __init__(self, reader: BinaryIO, size_bytes: int) -> None:
        self._reader = reader
        self._size_bytes = size_bytes
        self._file = pa.ipc.open_file(reader)
        self.schema = self._file.schema

    def piece_bytes(self, columns: Sequence[str]) -> list[int]:  # noqa: ARG002
        count = self._file.num_record_batches
        return [self._size_bytes // count] * count if count else []

    def batches(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        fields = [self.schema.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        file = pa.ipc.open_file(self._reader, options=options)
        for piece in range(start, stop):
            yield from _sliced(file.get_batch(piece))


class _ArrowStream:
    """One piece: nothing tells where its batches begin."""

    def __init__(self, reader: BinaryIO, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._stream = pa.ipc.open_stream(reader)
        self.schema = self._stream.schema

    def piece_bytes(self, columns: Sequence[str]) -> list[int]:  # noqa: ARG002
        return [self._size_bytes]

    def batches(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in self._stream if start < stop else ():
            yield from _sliced(batch.select(list(columns)))


def _sliced(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for row in range(0, batch.num_rows, _BATCH_ROWS):
        yield batch.slice(row, _BATCH_ROWS)
