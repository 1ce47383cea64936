"""One folder of image files for each class: ``data_uri/<class>/<image>``."""

import logging
from collections.abc import Iterator

from plsc.artifacts.records import BadRowError
from plsc.conf.schema import LabelKind, PipelineConfig
from plsc.preprocess.inputs.fetching import fetch, is_hidden, is_image, side_by_side
from plsc.preprocess.inputs.item import BEGINNING_BYTES, Item, Row
from plsc.preprocess.inputs.judge import Judge
from plsc.storage import ObjectInfo

__all__ = ["LAYOUT", "ClassFolders", "is_sample", "read"]

log = logging.getLogger(__name__)

LAYOUT = "class_folders"

_FILES_AN_ITEM = 20_000


class ClassFolders:
    """Images in folders, each named after its class; deeper folders belong to the first one's."""

    layout = LAYOUT

    def __init__(self, config: PipelineConfig, files: dict[str, ObjectInfo]) -> None:
        """Take the images, and say how many other files there are.

        Args:
            config: Tells what labels are: names, unless integers are asked for.
            files: All files below ``data_uri``.
        """
        self.is_named = config.preprocess.labels is not LabelKind.integers
        self.files = {name: info for name, info in sorted(files.items()) if is_sample(name)}
        num_others = len(files) - len(self.files)
        if num_others:
            log.info(
                "%s: %d files are not read: hidden, in no folder, or not named as images are",
                config.data_uri,
                num_others,
            )

    def items(self, item_bytes: int) -> Iterator[Item]:
        """Yield lists of files that follow each other by name, of about ``item_bytes``."""
        names: list[str] = []
        size_bytes = start = 0
        for name, info in self.files.items():
            if names and (
                size_bytes + info.size_bytes > item_bytes or len(names) >= _FILES_AN_ITEM
            ):
                yield self._item(names, start, size_bytes)
                start, names, size_bytes = start + len(names), [], 0
            names.append(name)
            size_bytes += info.size_bytes
        if names:
            yield self._item(names, start, size_bytes)

    def _item(self, names: list[str], start: int, size_bytes: int) -> Item:
        first = self.files[names[0]]
        return Item(
            layout=LAYOUT,
            part=names[0],
            uri=first.uri,
            etag=first.etag,
            start=start,
            stop=start + len(names),
            size_bytes=size_bytes,
            files=names,
        )


def read(item: Item, judge: Judge) -> Iterator[Row]:
    """Yield what became of every file of ``item``; files are read side by side.

    Raises:
        StorageError: If reading fails on the way.
    """
    folder = item.uri.removesuffix(item.part)

    def judged(numbered: tuple[int, str], limit_bytes: int) -> Row:
        number, name = numbered
        uri, image = folder + name, b""
        try:
            label = judge.label(name.partition("/")[0].encode())
            image = fetch(uri, limit_bytes)
            judge.image(image)
        except BadRowError as bad:
            beginning = name.encode()[:BEGINNING_BYTES]
            return Row(number, 0, len(image), bad=bad, beginning=beginning, uri=uri)
        return Row(number, 0, len(image), image, label, LAYOUT, uri=uri)

    return side_by_side(judged, enumerate(item.files, 1))


def is_sample(name: str) -> bool:
    """Return whether a file of this name below ``data_uri`` is an image in a class folder."""
    return "/" in name and is_image(name) and not is_hidden(name)
