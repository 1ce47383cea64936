"""What lies at ``data_uri``: base64 parts that a list names, or image files and ``label.txt``."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from plsc import storage
from plsc.artifacts.records import (
    LINE_LIMIT_BYTES,
    BadRowError,
    Line,
    Reason,
    Record,
    RecordParser,
    check_image,
    parse_label,
    read_lines,
)
from plsc.conf.schema import PipelineConfig
from plsc.errors import RecordError
from plsc.storage import ObjectInfo

__all__ = ["FILE_LIST", "LABELS", "ImageFiles", "Input", "RecordParts", "Row", "find"]

log = logging.getLogger(__name__)

FILE_LIST = "file_list.txt"
"""Names the parts, one a line, relative to ``data_uri``."""
LABELS = "label.txt"
"""Holds lines ``images/00000000.jpg 0``, file names relative to ``data_uri``."""

_FILES_AT_ONCE = 512
_THREADS = 8


class Row(NamedTuple):
    """What became of one line: a record, a reason why it is none, or (neither) a blank line."""

    line: Line
    record: Record | None = None
    order: str = ""
    """The order of a record's columns, or ``files``."""
    bad: BadRowError | None = None


class Input(Protocol):
    """Rows to read, in parts that can be read in any order."""

    files: dict[str, ObjectInfo]
    """Everything whose change makes another data set, by its name below ``data_uri``."""
    parts: Sequence[str]
    """Names of the files that hold the rows, sorted."""

    def read(self, part: str, config: PipelineConfig) -> Iterator[Row]:
        """Yield what became of every line of ``part``, in order.

        Raises:
            StorageError: If reading fails on the way.
        """


def find(data_uri: str) -> Input:
    """Return what lies at ``data_uri``.

    Raises:
        RecordError: If it is neither layout, or if the list names a part that is not there.
        StorageError: If the store cannot be asked.
    """
    folder = _canonical(data_uri)
    files = {
        info.uri.removeprefix(folder + "/"): info for info in storage.list_objects(folder + "/")
    }
    if FILE_LIST in files:
        if LABELS in files:
            log.warning("%s is not used: %s lies beside it", files[LABELS].uri, FILE_LIST)
        return RecordParts(files)
    if LABELS in files:
        return ImageFiles(files)
    found = ", ".join(sorted(files)[:5]) or "nothing"
    raise RecordError(
        f"{data_uri}: expected {FILE_LIST} and the base64 parts that it names, or {LABELS} and the"
        f" image files that it names, found {found}: check data_uri"
    )


class RecordParts:
    """``file_list.txt`` and the parts of base64 records that it names."""

    def __init__(self, files: dict[str, ObjectInfo]) -> None:
        """Read the list.

        Raises:
            RecordError: If it names no part, a part that is not there, or one twice.
        """
        self.parts: Sequence[str] = sorted(_listed_parts(files))
        self.files = {name: files[name] for name in self.parts}

    def read(self, part: str, config: PipelineConfig) -> Iterator[Row]:
        """Yield what became of every line of ``part``, in order."""
        parser = RecordParser(
            config.preprocess.column_order,
            image_size=config.image_size,
            num_classes=config.preprocess.num_classes,
        )
        with storage.open_reader(self.files[part].uri) as reader:
            for line in read_lines(reader):
                yield _judged(line, lambda row: _parsed(parser, row))


class ImageFiles:
    """``label.txt`` and the image files that it names: one part, whose rows are file names."""

    def __init__(self, files: dict[str, ObjectInfo]) -> None:
        """Take the files; verification sets and other files beside ``label.txt`` do not matter."""
        self.parts: Sequence[str] = [LABELS]
        self.files = {name: info for name, info in files.items() if "/" in name or name == LABELS}

    def read(self, part: str, config: PipelineConfig) -> Iterator[Row]:
        """Yield what became of every line of ``part``, in order; files are read side by side."""
        load = partial(
            self._load, image_size=config.image_size, num_classes=config.preprocess.num_classes
        )
        with (
            storage.open_reader(self.files[part].uri) as reader,
            ThreadPoolExecutor(_THREADS) as pool,
        ):
            lines = read_lines(reader)
            while some := list(islice(lines, _FILES_AT_ONCE)):
                yield from pool.map(lambda line: _judged(line, load), some)

    def _load(self, row: bytes, *, image_size: int, num_classes: int) -> tuple[Record, str]:
        columns = row.rsplit(maxsplit=1)
        if len(columns) != 2:
            raise BadRowError(Reason.COLUMNS, "expected a file name, a blank and a label")
        label = parse_label(columns[1], num_classes=num_classes)
        name = columns[0].strip().decode("utf-8", "replace").removeprefix("./")
        info = self.files.get(name)
        if info is None:
            raise BadRowError(Reason.NO_FILE, f"there is no such file beside {LABELS}: {name!r}")
        image = storage.read_bytes(info.uri, limit_bytes=LINE_LIMIT_BYTES)
        check_image(image, image_size=image_size)
        return Record(image, label), "files"


def _parsed(parser: RecordParser, row: bytes) -> tuple[Record, str]:
    record, order = parser.parse(row)
    return record, order.value


def _judged(line: Line, read: Callable[[bytes], tuple[Record, str]]) -> Row:
    """Return what becomes of ``line`` when ``read`` turns its row into a record and an order."""
    try:
        if not line.is_whole:
            raise BadRowError(
                Reason.TOO_LONG, f"{line.end - line.start} bytes are more than {LINE_LIMIT_BYTES}"
            )
        if not line.row or line.row.isspace():
            return Row(line)
        record, order = read(line.row)
    except BadRowError as bad:
        return Row(line, bad=bad)
    return Row(line, record, order)


def _listed_parts(files: dict[str, ObjectInfo]) -> Iterator[str]:
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


def _canonical(uri: str) -> str:
    """Return the folder ``uri`` as the storage writes it in front of what it lists."""
    if storage.is_remote(uri):
        return "s3://" + uri.partition("://")[2].rstrip("/")
    path = uri.removeprefix("file://")
    return uri if "://" in path else str(Path(path))
