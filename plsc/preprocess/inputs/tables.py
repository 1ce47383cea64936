"""Tables: Parquet and Arrow files with a column of encoded images and one of labels."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import pyarrow as pa

from plsc.artifacts.records import LINE_LIMIT_BYTES, BadRowError, Reason
from plsc.conf.schema import LabelKind, PipelineConfig
from plsc.errors import RecordError
from plsc.preprocess.inputs.fetching import is_hidden
from plsc.preprocess.inputs.item import BEGINNING_BYTES, Item, Row
from plsc.preprocess.inputs.judge import Judge
from plsc.preprocess.inputs.records import too_long
from plsc.preprocess.inputs.table_files import SUFFIXES, TableFile, open_table
from plsc.storage import ObjectInfo

__all__ = ["LAYOUT", "Tables", "is_table", "read"]

LAYOUT = "table"

_Label: TypeAlias = Any
"""``pa.Buffer``, int, or None."""


def is_table(name: str) -> bool:
    """Return whether a file of this name is a table."""
    return name.endswith(SUFFIXES) and not is_hidden(name)


class Tables:
    """Every table below ``data_uri``; all have the same two columns."""

    layout = LAYOUT

    def __init__(self, config: PipelineConfig, files: dict[str, ObjectInfo]) -> None:
        """Take the files, and ask the first what its labels are.

        Args:
            config: Names the columns.
            files: All files below ``data_uri``.

        Raises:
            RecordError: If the first table has no such columns.
        """
        self.files = {name: info for name, info in sorted(files.items()) if is_table(name)}
        settings = config.preprocess
        self._columns = (settings.image_column, settings.label_column)
        self.is_named = settings.labels is LabelKind.names
        if settings.labels is LabelKind.auto:
            first = next(iter(self.files.values())).uri
            with open_table(first) as table:
                _check(first, table, *self._columns)
                self.is_named = _is_text(table.schema.field(settings.label_column).type)

    def items(self, item_bytes: int) -> Iterator[Item]:
        """Yield runs of row groups (Parquet) or record batches (Arrow files); streams whole."""
        for name, info in self.files.items():
            with open_table(info.uri) as table:
                _check(info.uri, table, *self._columns)
                sizes = table.piece_bytes(self._columns)
            start = held = 0
            for piece, size in enumerate(sizes):
                if piece > start and held + size > item_bytes:
                    yield _item(name, info, start, piece, held)
                    start, held = piece, 0
                held += size
            yield _item(name, info, start, len(sizes), held)


def _item(name: str, info: ObjectInfo, start: int, stop: int, size_bytes: int) -> Item:
    return Item(
        layout=LAYOUT,
        part=name,
        uri=info.uri,
        etag=info.etag,
        start=start,
        stop=stop,
        size_bytes=size_bytes,
    )


def read(item: Item, judge: Judge) -> Iterator[Row]:
    """Yield what became of every row of ``item``.

    Raises:
        RecordError: If the file is damaged or lacks a column.
        StorageError: If reading fails on the way.
    """
    columns = (judge.image_column, judge.label_column)
    number = 0
    before: int | None = None
    with open_table(item.uri) as table:
        _check(item.uri, table, *columns)
        for batch in table.batches(item.start, item.stop, columns):
            images = _buffers(batch.column(columns[0]))
            labels = _labels(batch.column(columns[1]))
            for image, label in zip(images, labels, strict=True):
                number += 1
                row = _row(number, image, label, judge)
                if row.bad is not None:
                    if before is None:  # costs a look at every piece of an Arrow file
                        before = table.rows_before(item.start, columns[1])
                    row = row._replace(offset=before + number - 1)
                yield row


def _row(number: int, image: pa.Buffer | None, label: _Label, judge: Judge) -> Row:
    size_bytes = image.size if image is not None else 0
    try:
        if image is None or label is None:
            what = "label" if image is not None else "image"
            raise BadRowError(Reason.MISSING, f"the {what} is null")
        is_integer = isinstance(label, int)
        longest = size_bytes if is_integer else max(size_bytes, label.size)
        if longest > LINE_LIMIT_BYTES:
            raise too_long(longest)
        known = judge.integer(label) if is_integer else judge.label(label.to_pybytes())
        content = image.to_pybytes()
        judge.image(content)
    except BadRowError as bad:
        beginning = b"" if image is None else memoryview(image)[:BEGINNING_BYTES].tobytes()
        return Row(number, 0, size_bytes, bad=bad, beginning=beginning)
    return Row(number, 0, size_bytes, content, known, LAYOUT)


def _buffers(column: pa.Array) -> Iterator[pa.Buffer | None]:
    """Yield the bytes of every row, not copied: rows may have them in common."""
    return (scalar.as_buffer() for scalar in column)


def _labels(column: pa.Array) -> Iterable[_Label]:
    if pa.types.is_dictionary(column.type):
        values = list(_labels(column.dictionary))
        return (None if place is None else values[place] for place in column.indices.to_pylist())
    if pa.types.is_integer(column.type):
        numbers: list[int | None] = column.to_pylist()
        return numbers
    return _buffers(column)


def _check(uri: str, table: TableFile, image_column: str, label_column: str) -> None:
    """Check that ``table`` has an image column and a label column of usable types.

    Raises:
        RecordError: If not; it names what was found.
    """
    found = ", ".join(f"{field.name} ({field.type})" for field in table.schema) or "none"
    for key, name, fits, expected in (
        ("image_column", image_column, _is_images, "binary, or struct with binary 'bytes'"),
        ("label_column", label_column, _is_label, "integer or text"),
    ):
        index = table.schema.get_field_index(name)
        if index < 0 or not fits(table.schema.field(index).type):
            raise RecordError(
                f"{uri}: expected a column {name!r} of type {expected} (preprocess.{key}), found"
                f" the columns {found}"
            )


def _is_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def _is_label(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_integer(value)) or _is_text(value)


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, _is_binary)
    return any(test(value) for test in tests)


def _is_binary(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)
