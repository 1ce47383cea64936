"""Base64 records: ``file_list.txt`` and the parts that it names, plain or compressed."""

import re
from collections.abc import Callable, Iterator

from plsc import storage
from plsc.artifacts.records import (
    LINE_LIMIT_BYTES,
    BadRowError,
    Reason,
    decode_image,
    split_columns,
)
from plsc.conf.schema import LabelKind, PipelineConfig
from plsc.errors import RecordError
from plsc.preprocess.inputs import compression
from plsc.preprocess.inputs.item import BEGINNING_BYTES, Item, Row, cuts
from plsc.preprocess.inputs.judge import Judge
from plsc.preprocess.inputs.lines import Line, lines_of, split
from plsc.storage import ObjectInfo

__all__ = ["FILE_LIST", "LAYOUT", "Records", "read", "too_long"]

LAYOUT = "records"
FILE_LIST = "file_list.txt"
"""Names the parts, one a line, relative to ``data_uri``."""


class Records:
    """``file_list.txt`` and the parts of base64 records that it names."""

    layout = LAYOUT

    def __init__(self, config: PipelineConfig, files: dict[str, ObjectInfo]) -> None:
        """Read the list; its own order and spelling do not matter.

        Args:
            config: Tells what labels are.
            files: All files below ``data_uri``.

        Raises:
            RecordError: If it names no part, a part that is not there, or one twice.
        """
        self.is_named = config.preprocess.labels is LabelKind.names
        self.files = {name: files[name] for name in sorted(_listed(files))}

    def items(self, item_bytes: int) -> Iterator[Item]:
        """Yield byte ranges of plain parts, compressed ones whole."""
        for name, info in self.files.items():
            is_plain = not name.endswith(tuple(compression.SUFFIXES))
            pieces = -(-info.size_bytes // item_bytes) if is_plain else 1
            for start, stop in cuts(info.size_bytes, pieces):
                yield Item(
                    layout=LAYOUT,
                    part=name,
                    uri=info.uri,
                    etag=info.etag,
                    start=start,
                    stop=stop,
                    size_bytes=stop - start,
                    columns={"part_bytes": str(info.size_bytes)},
                )


def read(item: Item, judge: Judge) -> Iterator[Row]:
    """Yield what became of every line that begins in ``item``.

    Raises:
        RecordError: If the part is cut off or damaged (compressed), or changed since.
        StorageError: If reading fails on the way.
    """
    if item.part.endswith(tuple(compression.SUFFIXES)):
        return _read_compressed(item, judge)
    part_bytes = int(item.columns["part_bytes"])
    lines = lines_of(item.uri, start=item.start, stop=item.stop, part_bytes=part_bytes)
    return _rows(lines, judge, lambda line: line.size_bytes)


def _read_compressed(item: Item, judge: Judge) -> Iterator[Row]:
    with compression.open_stream(item.uri) as stream:
        told = 0

        def newly_read(_line: Line) -> int:
            nonlocal told
            told, before = stream.source_bytes, told
            return told - before

        blocks = iter(stream.read, b"")
        yield from _rows(split(blocks, limit_bytes=LINE_LIMIT_BYTES), judge, newly_read)


def _rows(lines: Iterator[Line], judge: Judge, size_of: Callable[[Line], int]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        row = line.row
        size_bytes = size_of(line)
        try:
            if not line.is_whole:
                raise too_long(line.size_bytes)
            if not row or row.isspace():
                yield Row(number, line.offset, size_bytes)
                continue
            text, label_text, order = split_columns(
                row, judge.column_order, is_named=judge.is_named
            )
            label = judge.label(label_text)
            image = decode_image(text)
            judge.image(image)
        except BadRowError as bad:
            beginning = row[:BEGINNING_BYTES]
            yield Row(number, line.offset, size_bytes, bad=bad, beginning=beginning)
            continue
        yield Row(number, line.offset, size_bytes, image, label, order.value)


def too_long(size_bytes: int) -> BadRowError:
    """Return what is wrong with a row or an image of so many bytes."""
    return BadRowError(
        Reason.TOO_LONG, f"{size_bytes} bytes are more than the {LINE_LIMIT_BYTES} allowed"
    )


def _listed(files: dict[str, ObjectInfo]) -> Iterator[str]:
    uri = files[FILE_LIST].uri
    names = storage.read_bytes(uri).decode("utf-8-sig", "replace").splitlines()
    seen: dict[str, int] = {}
    for number, listed in enumerate(names, 1):
        name = re.sub(r"^(\./+)+", "", listed.strip())
        if not name:
            continue
        if name not in files:
            raise RecordError(
                f"{uri}, line {number}: expected the name of a part beside the list, found"
                f" {name!r}, and there is no such file: upload it, or take it off the list"
            )
        if name in seen:
            raise RecordError(
                f"{uri}, line {number}: {name!r} is on line {seen[name]} already: its rows would be"
                " doubled: take one of them off the list"
            )
        seen[name] = number
        yield name
    if not seen:
        raise RecordError(f"{uri}: expected the names of parts, one a line, found none")
