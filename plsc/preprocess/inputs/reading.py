"""The reading of an item, in whatever layout it is."""

from collections.abc import Iterator
from importlib import import_module

from plsc.preprocess.inputs.item import Item, Row
from plsc.preprocess.inputs.judge import Judge

__all__ = ["read"]

_MODULES = {
    "records": "records",
    "image_files": "image_files",
    "class_folders": "class_folders",
    "record_io": "record_io_reading",
    "table": "tables",
    "tar": "tars",
}
"""Layout -> the module whose ``read`` reads it; loaded when needed, so that workers start fast."""


def read(item: Item, judge: Judge) -> Iterator[Row]:
    """Yield what became of every row of ``item``: a pure function of it and of the store.

    Raises:
        RecordError: If the part is damaged so that rows would be lost, or changed since.
        StorageError: If reading fails on the way.
    """
    module = import_module(f"plsc.preprocess.inputs.{_MODULES[item.layout]}")
    rows: Iterator[Row] = module.read(item, judge)
    return rows
