"""Finding what lies at ``data_uri``: the layout is told by the files' names."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from plsc import storage
from plsc.conf.schema import InputLayout, PipelineConfig
from plsc.errors import RecordError
from plsc.preprocess.inputs.class_folders import ClassFolders, is_sample
from plsc.preprocess.inputs.fetching import is_hidden
from plsc.preprocess.inputs.image_files import LABELS, ImageFiles
from plsc.preprocess.inputs.item import Input
from plsc.preprocess.inputs.record_io import SUFFIX, RecordIO
from plsc.preprocess.inputs.records import FILE_LIST, Records
from plsc.preprocess.inputs.tables import Tables, is_table
from plsc.preprocess.inputs.tars import Tars, is_tar
from plsc.storage import ObjectInfo

__all__ = ["find"]

log = logging.getLogger(__name__)

_UNDECODED = re.compile("[\ud800-\udfff]")


class _Layout(NamedTuple):
    make: Callable[[PipelineConfig, dict[str, ObjectInfo]], Input]
    tells: Callable[[str], bool]
    """Whether a file of this name tells that the layout is there."""
    words: str


_LAYOUTS = {
    InputLayout.records: _Layout(
        Records, lambda name: name == FILE_LIST, f"{FILE_LIST} and the base64 parts that it names"
    ),
    InputLayout.image_files: _Layout(
        ImageFiles, lambda name: name == LABELS, f"{LABELS} and the image files that it names"
    ),
    InputLayout.record_io: _Layout(
        RecordIO,
        lambda name: name.endswith(SUFFIX) and not is_hidden(name),
        "RecordIO (*.rec with *.idx)",
    ),
    InputLayout.table: _Layout(Tables, is_table, "tables (*.parquet, *.arrow, *.feather)"),
    InputLayout.tar: _Layout(Tars, is_tar, "WebDataset (*.tar, *.tar.gz, *.tgz, *.tar.zst)"),
    InputLayout.class_folders: _Layout(
        ClassFolders, is_sample, "a folder of images for each class"
    ),
}
"""In order of precedence: what names files outright, then formats, then mere folders of images."""


def find(config: PipelineConfig) -> Input:
    """Return what lies at ``config.data_uri``.

    If several layouts lie side by side, the first of ``_LAYOUTS`` is taken, with a warning;
    ``preprocess.layout`` chooses another.

    Raises:
        RecordError: If there is no layout, or not the one asked for, if its list is wrong, or if
            a file's name is not UTF-8.
        StorageError: If the store cannot be asked.
    """
    folder = _canonical(config.data_uri)
    files = {
        info.uri.removeprefix(folder + "/"): info for info in storage.list_objects(folder + "/")
    }
    asked = config.preprocess.layout
    looked_for = list(_LAYOUTS) if asked is InputLayout.auto else [asked]
    there = [layout for layout in looked_for if any(map(_LAYOUTS[layout].tells, files))]
    if not there:
        expected = ", or ".join(_LAYOUTS[layout].words for layout in looked_for)
        raise RecordError(
            f"{config.data_uri}: expected {expected}, found {_few(files)}: check data_uri and"
            " preprocess.layout"
        )
    if len(there) > 1:  # folders of images mean nothing beside what was made to be read
        there = [layout for layout in there if layout is not InputLayout.class_folders]
    if len(there) > 1:
        log.warning(
            "%s: %s is read; beside it lies what is not used: %s (preprocess.layout chooses)",
            config.data_uri,
            there[0].value,
            ", ".join(layout.value for layout in there[1:]),
        )
    source = _LAYOUTS[there[0]].make(config, files)
    _check_names(config.data_uri, source)
    return source


def _check_names(uri: str, source: Input) -> None:
    """Check that an item could carry the name of every file that is read."""
    for name in source.files:
        if not name.isascii() and _UNDECODED.search(name):
            raise RecordError(f"{uri}: expected file names in UTF-8, found {name!r}: rename it")


def _few(files: dict[str, ObjectInfo]) -> str:
    names = sorted(files)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "") or "nothing"


def _canonical(uri: str) -> str:
    """Return the folder ``uri`` as the storage writes it in front of what it lists."""
    if storage.is_remote(uri):
        scheme, _, rest = uri.partition("://")
        return f"{'s3' if scheme == 'minio' else scheme}://{rest.rstrip('/')}"
    path = uri.removeprefix("file://")
    return uri if "://" in path else str(Path(path))
