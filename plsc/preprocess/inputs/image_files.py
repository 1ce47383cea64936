"""Image files and ``label.txt``, whose lines ``images/00000000.jpg 0`` name them."""

import re
from collections.abc import Callable, Iterator

from plsc.artifacts.records import BadRowError, Reason
from plsc.conf.schema import LabelKind, PipelineConfig
from plsc.preprocess.inputs.fetching import fetch, is_hidden, is_image, side_by_side
from plsc.preprocess.inputs.item import BEGINNING_BYTES, Item, Row, cuts
from plsc.preprocess.inputs.judge import Judge
from plsc.preprocess.inputs.lines import Line, lines_of
from plsc.preprocess.inputs.records import too_long
from plsc.storage import ObjectInfo

__all__ = ["LABELS", "LAYOUT", "ImageFiles", "read"]

LAYOUT = "image_files"
LABELS = "label.txt"
"""Holds lines of a file name relative to ``data_uri``, a blank, and a label."""

_BOM = b"\xef\xbb\xbf"
_NAME_BYTES = 1024
_FOLDER_BYTES = 255
"""Longer names, and longer names between slashes, are asked of no store: some fail at them."""
_UNUSABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class ImageFiles:
    """``label.txt`` and the image files that it names."""

    layout = LAYOUT

    def __init__(self, config: PipelineConfig, files: dict[str, ObjectInfo]) -> None:
        """Take the files; verification sets and other files beside ``label.txt`` do not matter.

        Args:
            config: Tells what labels are.
            files: All files below ``data_uri``.
        """
        self.is_named = config.preprocess.labels is LabelKind.names
        self.files = {
            name: info
            for name, info in sorted(files.items())
            if name == LABELS or _can_be_named(name)
        }

    def items(self, item_bytes: int) -> Iterator[Item]:
        """Yield byte ranges of ``label.txt`` whose lines name about ``item_bytes`` of images.

        That is, if each image has one line, and lines are about equally long.
        """
        labels = self.files[LABELS]
        size_bytes = sum(info.size_bytes for info in self.files.values())
        for start, stop in cuts(labels.size_bytes, -(-size_bytes // item_bytes)):
            yield Item(
                layout=LAYOUT,
                part=LABELS,
                uri=labels.uri,
                etag=labels.etag,
                start=start,
                stop=stop,
                size_bytes=size_bytes * (stop - start) // max(1, labels.size_bytes),
                columns={"part_bytes": str(labels.size_bytes)},
            )


def read(item: Item, judge: Judge) -> Iterator[Row]:
    """Yield what became of every line that begins in ``item``; files are read side by side.

    Raises:
        RecordError: If ``label.txt`` changed since.
        StorageError: If reading fails on the way.
    """
    folder = item.uri.removesuffix(item.part)
    lines = lines_of(
        item.uri,
        start=item.start,
        stop=item.stop,
        part_bytes=int(item.columns["part_bytes"]),
    )

    def judged(numbered: tuple[int, Line], limit_bytes: int) -> Row:
        number, line = numbered
        try:
            return _row(number, line, judge, lambda name: fetch(folder + name, limit_bytes))
        except BadRowError as bad:
            beginning = line.row[:BEGINNING_BYTES]
            return Row(number, line.offset, line.size_bytes, bad=bad, beginning=beginning)

    return side_by_side(judged, enumerate(lines, 1))


def _row(number: int, line: Line, judge: Judge, fetched: Callable[[str], bytes]) -> Row:
    if not line.is_whole:
        raise too_long(line.size_bytes)
    columns = (line.row if line.offset else line.row.removeprefix(_BOM)).rsplit(maxsplit=1)
    if not columns:
        return Row(number, line.offset, line.size_bytes)
    if len(columns) != 2:
        raise BadRowError(Reason.COLUMNS, "expected a file name, a blank and a label")
    label = judge.label(columns[1])
    name = re.sub(r"^(\./+)+", "", columns[0].strip().decode("utf-8", "surrogateescape"))
    if not _can_be_named(name):
        raise BadRowError(
            Reason.NO_FILE, f"this cannot be the name of an image file beside {LABELS}: {name!r}"
        )
    image = fetched(name)
    judge.image(image)
    size_bytes = line.size_bytes + len(image)
    return Row(number, line.offset, size_bytes, image, label, LAYOUT)


def _can_be_named(name: str) -> bool:
    """Return whether a file of this name is read if ``label.txt`` names it, and so matters.

    Hidden files and those with ``..`` in their name are not, nor are files right beside
    ``label.txt`` that do not end as images do, nor verification sets, nor names that no store
    could be asked for: not in UTF-8, with control characters, or too long.
    """
    if _UNUSABLE.search(name) or len(name.encode()) > _NAME_BYTES:
        return False
    if any(len(part.encode()) > _FOLDER_BYTES for part in name.split("/")):
        return False
    return not is_hidden(name) and (is_image(name) or ("/" in name and not name.endswith(".bin")))
