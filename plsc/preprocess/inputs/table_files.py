"""Parquet and Arrow files: their schema, their pieces, and batches of rows of bounded size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from plsc import storage
from plsc.errors import RecordError
from plsc.preprocess.inputs.parquet_pages import PAGE_HEADER_BYTES, dictionary_page_bytes

__all__ = ["SUFFIXES", "TableFile", "open_table"]

SUFFIXES = (".parquet", ".arrow", ".feather")

_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 1024
_REPEATED_BYTES = 32 << 20
"""What a batch may come to if its pages are so written that a value can repeat for next to nothing
and every row has the longest."""
_BUFFER_BYTES = 4 << 20
_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}
_ARROW_FILE = b"ARROW1"
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class TableFile(Protocol):
    """An open table."""

    schema: pa.Schema

    def piece_bytes(self, columns: Sequence[str]) -> list[int]:
        """Return about how many bytes ``columns`` take in each piece that can be read alone."""

    def batches(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the pieces [start, stop), of ``columns``, in order.

        Nothing in them points outside of its buffers. Texts come as bytes, as they may not be
        UTF-8, and a struct as its field ``bytes``.
        """

    def rows_before(self, piece: int, column: str) -> int:
        """Return the number of rows before ``piece``; ``column``, a small one, may be read."""


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
        self._reader = reader
        self._file = pq.ParquetFile(reader, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        self.schema = self._file.schema_arrow

    def piece_bytes(self, columns: Sequence[str]) -> list[int]:
        return [
            sum(chunk.total_compressed_size for chunk in self._chunks(group, columns))
            for group in range(self._file.metadata.num_row_groups)
        ]

    def batches(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for group in range(start, stop):
            about = self._file.metadata.row_group(group)
            row_bytes = about.total_byte_size // max(1, about.num_rows) + 1
            most = [_REPEATED_BYTES // size for size in self._repeatable_bytes(group, columns)]
            batches = self._file.iter_batches(
                batch_size=max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes, *most)),
                row_groups=[group],
                columns=list(columns),
                use_threads=False,
            )
            yield from map(_sound, batches)

    def rows_before(self, piece: int, column: str) -> int:  # noqa: ARG002
        metadata = self._file.metadata
        return sum(metadata.row_group(group).num_rows for group in range(piece))

    def _repeatable_bytes(self, group: int, columns: Sequence[str]) -> Iterator[int]:
        """Yield bounds > 0 of the bytes of a value that rows can repeat without its bytes."""
        for chunk in self._chunks(group, columns):
            if "DELTA_BYTE_ARRAY" in chunk.encodings:  # a value has a beginning of the last one
                yield chunk.total_uncompressed_size + 1
            starts = (chunk.dictionary_page_offset or 0, chunk.data_page_offset)
            self._reader.seek(min((offset for offset in starts if offset > 0), default=0))
            yield dictionary_page_bytes(self._reader.read(PAGE_HEADER_BYTES)) + 1

    def _chunks(self, group: int, columns: Sequence[str]) -> Iterator[pq.ColumnChunkMetaData]:
        about = self._file.metadata.row_group(group)
        for chunk in map(about.column, range(about.num_columns)):
            if chunk.path_in_schema.partition(".")[0] in columns:
                yield chunk


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
        file = self._with(columns)
        for piece in range(start, stop):
            yield from _sliced(_sound(file.get_batch(piece)))

    def rows_before(self, piece: int, column: str) -> int:
        file = self._with([column])
        return sum(file.get_batch(before).num_rows for before in range(piece))

    def _with(self, columns: Sequence[str]) -> pa.ipc.RecordBatchFileReader:
        fields = [self.schema.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        return pa.ipc.open_file(self._reader, options=options)


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
            yield from _sliced(_sound(batch.select(list(columns))))

    def rows_before(self, piece: int, column: str) -> int:  # noqa: ARG002  there is one piece
        return 0


def _sliced(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for row in range(0, batch.num_rows, _BATCH_ROWS):
        yield batch.slice(row, _BATCH_ROWS)


def _sound(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return ``batch`` as ``TableFile.batches`` gives it.

    Raises:
        pa.ArrowInvalid: If anything in it points outside of its buffers: reading that would end
            the process, or give whatever lies there in memory.
    """
    batch.validate()  # of what is only looked at to take the columns apart
    columns = [_as_bytes(column) for column in batch.columns]
    for column in columns:
        column.validate(full=True)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _as_bytes(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_struct(kind):
        return pc.struct_field(column, "bytes")
    if pa.types.is_dictionary(kind):
        values = _as_bytes(column.dictionary)
        return pa.DictionaryArray.from_arrays(column.indices, values, safe=False)
    return column.view(_BYTES[kind]) if kind in _BYTES else column
