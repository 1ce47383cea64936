"""Tables made to end the process or to fill its memory."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plsc.errors import RecordError
from plsc.preprocess.inputs import parquet_pages, read, table_files
from tests.preprocess.layouts import found, judge, rows_of, samples, table_of, write_table
from tests.preprocess.rows import image


def int32(*numbers: int) -> bytes:
    return np.array(numbers, np.int32).tobytes()


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("shift", [3000, 2**31 - 10_000, -5000])
@pytest.mark.parametrize("is_struct", [False, True])
def test_offsets_that_point_outside_are_an_error(tmp_path, is_stream, shift, is_struct):
    some = samples(20)
    table = table_of(some, is_struct=is_struct)
    write_table(tmp_path / "a.arrow", table, rows=20, is_stream=is_stream)
    ends = np.cumsum([0, *(len(content) for content, _ in some)]).tolist()
    altered = [*ends[:5], *((np.array(ends[5:]) + shift).astype(np.int32).tolist())]
    alter(tmp_path / "a.arrow", int32(*ends), int32(*altered))
    with pytest.raises(RecordError, match=r"a\.arrow: expected .* found damage: .*upload it again"):
        rows_of(found(tmp_path))


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("kind", [pa.string(), pa.string_view(), pa.binary_view()])
def test_labels_that_point_outside_are_an_error(tmp_path, is_stream, kind):
    names = ["a name longer than a view", "another of that kind"] * 3
    labels = pa.array([one if pa.types.is_string(kind) else one.encode() for one in names])
    table = pa.table({"image": [image(n) for n in range(6)], "label": labels.cast(kind)})
    write_table(tmp_path / "a.arrow", table, rows=6, is_stream=is_stream)
    if pa.types.is_string(kind):
        alter(tmp_path / "a.arrow", int32(0, 25, 45, 70), int32(0, 25, 10**9, 70))
    else:  # bytes in all, the first four, number and place in the buffers
        alter(tmp_path / "a.arrow", int32(20) + b"anot" + int32(0), int32(20) + b"anot" + int32(9))
    with pytest.raises(RecordError, match=r"a\.arrow: expected .* found damage"):
        rows_of(found(tmp_path))


@pytest.mark.parametrize("is_stream", [False, True])
def test_words_that_their_dictionary_lacks_are_an_error(tmp_path, is_stream):
    places = pa.array([0, 1, 0, 1, 1, 0], pa.int32())
    labels = pa.DictionaryArray.from_arrays(places, pa.array(["cat", "dog"]))
    table = pa.table({"image": [image(n) for n in range(6)], "label": labels})
    write_table(tmp_path / "a.arrow", table, rows=6, is_stream=is_stream)
    alter(tmp_path / "a.arrow", int32(0, 1, 0, 1, 1, 0), int32(0, 1, 0, -(10**9), 10**9, 0))
    with pytest.raises(RecordError, match=r"a\.arrow: expected .* found damage"):
        rows_of(found(tmp_path))


def alter(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


LONG = b"x" * 1_000_000


@pytest.mark.parametrize(
    "encoding",
    [{"use_dictionary": True}, {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}],
)
@pytest.mark.parametrize("column", ["image", "label"])
def test_a_long_value_that_rows_repeat_for_nothing_does_not_fill_the_memory(
    tmp_path, encoding, column
):
    values = {"image": [b"short"] * 400, "label": [b"short"] * 400} | {column: [LONG] * 400}
    table = pa.table({name: pa.array(few, pa.binary()) for name, few in values.items()})
    if "column_encoding" in encoding:
        encoding = encoding | {"column_encoding": dict.fromkeys(values, "DELTA_BYTE_ARRAY")}
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", **encoding)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    with table_files.open_table(str(tmp_path / "a.parquet")) as opened:
        batches = list(map(sizes, opened.batches(0, 1, ["image", "label"])))
    assert sum(rows for rows, _ in batches) == 400
    assert max(num_bytes for _, num_bytes in batches) <= 33 << 20


def sizes(batch: pa.RecordBatch) -> tuple[int, int]:
    return batch.num_rows, batch.nbytes


@pytest.mark.parametrize("is_view", [False, True])
def test_rows_of_arrow_that_share_their_bytes_are_not_copied_side_by_side(tmp_path, is_view):
    if is_view:
        views = pa.py_buffer(struct.pack("<i4sii", len(LONG), LONG[:4], 0, 0) * 400)
        buffers = [None, views, pa.py_buffer(LONG)]
        image_column = pa.Array.from_buffers(pa.binary_view(), 400, buffers)
        label_column = pa.array(["a"] * 400)
    else:
        image_column = pa.array([b"short"] * 400)
        words = pa.array([LONG.decode()])
        label_column = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int8()), words)
    table = pa.table({"image": image_column, "label": label_column})
    write_table(tmp_path / "a.arrow", table, rows=400)
    source = found(tmp_path)
    (item,) = source.items(1 << 40)
    tracemalloc.start()
    try:
        count = sum(row.bad is not None for row in read(item, judge(source)))
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    assert count == 400


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (b"\x15\x04\x15\x80\x92\xf4\x01\x15\x00", 2_000_000),
        (b"\x15\x04\x15\x02", 1),
        (b"\x15\x00\x15\x80\x92\xf4\x01", 0),
        (b"\x15\x04\x15\x01", 0),
        (b"\x15\x04", 0),
        (b"\x15\x04\x15\xff\xff\xff\xff\xff\xff\xff", 0),
        (b"", 0),
    ],
)
def test_the_header_of_a_page_tells_whether_it_is_a_dictionary_and_how_large(header, size):
    assert parquet_pages.dictionary_page_bytes(header) == size
