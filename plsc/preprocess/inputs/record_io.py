"""InsightFace's RecordIO: ``train.rec`` with ``train.idx`` beside it.

``.idx`` holds lines ``key TAB offset``. If record 0 holds two labels and no image, it is the header
of the set: images are the keys 1 .. labels[0] - 1, and records of identities, which name ranges of
keys and hold no image, come after them. Otherwise every key is an image. Without ``.idx`` the
records are read in sequence. Records that hold two labels and no image are always passed over.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from plsc import storage
from plsc.artifacts.records import BadRowError
from plsc.conf.schema import LabelKind, PipelineConfig
from plsc.errors import RecordError
from plsc.preprocess.inputs.fetching import is_hidden
from plsc.preprocess.inputs.item import Item
from plsc.preprocess.inputs.record_io_format import parse_image_record, take_record
from plsc.storage import ObjectInfo

__all__ = ["LAYOUT", "SUFFIX", "RecordIO"]

LAYOUT = "record_io"
SUFFIX = ".rec"

_RECORDS_AN_ITEM = 20_000
_HEADER_BYTES = 4096
_LARGEST_EXACT = 2**24

_Offsets = npt.NDArray[np.int64]


class RecordIO:
    """Every ``.rec`` file, with the ``.idx`` of the same name if there is one."""

    layout = LAYOUT

    def __init__(self, config: PipelineConfig, files: dict[str, ObjectInfo]) -> None:
        """Take the files.

        Args:
            config: Tells what labels are: integers, unless names are asked for.
            files: All files below ``data_uri``.
        """
        self.is_named = config.preprocess.labels is LabelKind.names
        parts = sorted(name for name in files if name.endswith(SUFFIX) and not is_hidden(name))
        names = [name for part in parts for name in (part, _index_name(part)) if name in files]
        self.files = {name: files[name] for name in names}

    def items(self, item_bytes: int) -> Iterator[Item]:
        """Yield runs of records that follow each other; parts without an index whole."""
        for name, info in self.files.items():
            if not name.endswith(SUFFIX):
                continue
            index = self.files.get(_index_name(name))
            if index is not None and info.size_bytes:
                yield from _indexed_items(name, info, index, item_bytes)
            else:
                yield _item(name, info, 0, info.size_bytes, None)


def _item(name: str, info: ObjectInfo, start: int, stop: int, offsets: _Offsets | None) -> Item:
    columns = {"part_bytes": str(info.size_bytes)}
    if offsets is not None:  # the first, then the distance from each to the next
        columns["offsets"] = " ".join(map(str, np.diff(offsets, prepend=0).tolist()))
    return Item(
        layout=LAYOUT,
        part=name,
        uri=info.uri,
        etag=info.etag,
        start=start,
        stop=stop,
        size_bytes=stop - start,
        columns=columns,
    )


def _indexed_items(
    name: str, info: ObjectInfo, index: ObjectInfo, item_bytes: int
) -> Iterator[Item]:
    keys, offsets = _read_index(index)
    is_image = _are_images(keys, offsets, info, index)
    starts = offsets[is_image]
    size = info.size_bytes
    stops = np.minimum(np.append(offsets[1:], size)[is_image], size)
    read_to = np.cumsum(np.maximum(0, stops - starts))
    first = 0
    while first < len(starts):
        target = (read_to[first - 1] if first else 0) + item_bytes
        last = int(np.searchsorted(read_to, target, side="right"))
        last = min(max(last, first + 1), first + _RECORDS_AN_ITEM)
        start, stop = min(int(starts[first]), size), int(stops[last - 1])
        yield _item(name, info, start, max(start, stop), starts[first:last])
        first = last


def _read_index(index: ObjectInfo) -> tuple[_Offsets, _Offsets]:
    """Return the keys and offsets of ``.idx``, int64 [n], n > 0, by ascending offset.

    Raises:
        RecordError: If a line is not ``key TAB offset``, or a key or an offset is there twice.
    """
    if not index.size_bytes:
        raise RecordError(f"{index.uri}: expected lines of key TAB offset, found none")
    try:
        with storage.open_reader(index.uri) as reader:
            table = pa_csv.read_csv(
                pa.PythonFile(reader, mode="r"),
                read_options=pa_csv.ReadOptions(column_names=["key", "offset"], use_threads=False),
                parse_options=pa_csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=pa_csv.ConvertOptions(
                    column_types={"key": pa.int64(), "offset": pa.int64()}, null_values=[]
                ),
            )
    except pa.ArrowException as error:
        raise RecordError(
            f"{index.uri}: expected lines of key TAB offset: {error}: upload it again"
        ) from error
    keys: _Offsets = table["key"].to_numpy()
    offsets: _Offsets = table["offset"].to_numpy()
    for values, what in ((keys, "key"), (offsets, "offset")):
        ordered = np.sort(values)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(twice):
            raise RecordError(
                f"{index.uri}: the {what} {twice[0]} is there twice: its row would be doubled"
            )
        if ordered[0] < 0:
            raise RecordError(f"{index.uri}: the {what} {ordered[0]} is negative")
    order = np.argsort(offsets)
    return keys[order], offsets[order]


def _are_images(
    keys: _Offsets, offsets: _Offsets, info: ObjectInfo, index: ObjectInfo
) -> npt.NDArray[np.bool_]:
    """Return which keys are images, bool [n].

    Raises:
        RecordError: If the set's header tells of more images than the index does.
    """
    num_keys = _num_keys_in_header(keys, offsets, info)
    if num_keys is None:
        return np.ones(len(keys), bool)
    slack = int(np.spacing(np.float32(num_keys))) if num_keys >= _LARGEST_EXACT else 0
    is_image = (keys >= 1) & (keys < num_keys + slack)
    found, expected = int(is_image.sum()), num_keys - 1 - slack
    if found < expected:
        raise RecordError(
            f"{index.uri}: expected the {expected} images that record 0 of {info.uri} tells of,"
            f" found {found}: the index is cut off, or of another file"
        )
    return is_image


def _num_keys_in_header(keys: _Offsets, offsets: _Offsets, info: ObjectInfo) -> int | None:
    """Return the first key that is no image, as the set's header tells, if it has one."""
    at = offsets[keys == 0]
    if not len(at) or at[0] >= info.size_bytes:
        return None
    start = int(at[0])
    content = storage.read_range(info.uri, start, min(start + _HEADER_BYTES, info.size_bytes))
    try:
        taken = take_record(content)
        record = parse_image_record(taken[0]) if taken else None
    except BadRowError:
        return None  # then it is a bad row of its own
    if record is None or not record.is_range or not record.labels[0].is_integer():
        return None
    return max(1, int(record.labels[0]))


def _index_name(part: str) -> str:
    return part.removesuffix(SUFFIX) + ".idx"
