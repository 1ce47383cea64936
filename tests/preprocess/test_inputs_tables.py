import io
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plsc import storage
from plsc.errors import RecordError, StorageError
from plsc.preprocess.inputs import read, table_files
from tests.preprocess.layouts import (
    found,
    judge,
    reasons_in,
    rows_of,
    samples,
    samples_in,
    table_of,
    write_table,
)
from tests.preprocess.rows import image

FORMATS = pytest.mark.parametrize(
    ("name", "is_stream"), [("a.parquet", False), ("a.arrow", False), ("a.arrow", True)]
)


@FORMATS
@pytest.mark.parametrize("is_struct", [False, True])
@pytest.mark.parametrize("item_bytes", [1, 1 << 40])
def test_tables_of_images_are_read(tmp_path, name, is_stream, is_struct, item_bytes):
    table = table_of(samples(), is_struct=is_struct)
    source = found(write_table(tmp_path / name, table, is_stream=is_stream))
    rows = rows_of(source, item_bytes)
    assert samples_in(rows) == samples()
    assert {row.form for row in rows} == {"table"}
    assert len(list(source.items(item_bytes))) == (1 if is_stream or item_bytes > 1 else 3)


@FORMATS
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
@pytest.mark.parametrize("label", [pa.uint8(), pa.int16(), pa.uint64(), pa.int64()])
def test_every_type_of_bytes_and_integers_is_read(tmp_path, name, is_stream, kind, label):
    images, labels = zip(*samples(), strict=True)
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels, label)})
    source = found(write_table(tmp_path / name, table, is_stream=is_stream))
    assert not source.is_named
    assert samples_in(rows_of(source)) == samples()


@FORMATS
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()])
@pytest.mark.parametrize("is_dictionary", [False, True])
def test_labels_of_text_are_names(tmp_path, name, is_stream, kind, is_dictionary):
    names = ["cat", "Жук", "7"]
    labels = pa.array([one.encode() if kind == pa.binary() else one for one in names], kind)
    if is_dictionary and kind != pa.string_view():
        labels = labels.dictionary_encode()
    table = pa.table({"image": [image(n) for n in range(3)], "label": labels})
    folder = write_table(tmp_path / name, table, is_stream=is_stream)
    source = found(folder)
    assert source.is_named
    assert [label for _, label in samples_in(rows_of(source))] == [one.encode() for one in names]
    rows = rows_of(found(folder, labels="integers"))
    assert reasons_in(rows) == ["label_not_an_integer"] * 2
    assert samples_in(rows) == [(image(2), 7)]


@FORMATS
def test_nulls_and_bad_values_are_bad_rows_with_reasons(tmp_path, name, is_stream):
    images = [{"bytes": image(0)}, None, {"bytes": None}, {"bytes": image(1)}, {"bytes": b"none"}]
    images += [{"bytes": image(2)}, {"bytes": image(3)}]
    labels = ["0", "1", "2", None, "3", "-1", str(2**63)]
    table = pa.table({"image": images, "label": labels})
    folder = write_table(tmp_path / name, table, is_stream=is_stream)
    rows = rows_of(found(folder, labels="integers"))
    expected = ["missing", "missing", "missing", "not_an_image", "label_negative", "label_overflow"]
    assert reasons_in(rows) == expected
    assert samples_in(rows) == [(image(0), 0)]
    assert [row.offset for row in rows if row.bad is not None] == list(range(1, 7))


def test_names_that_are_not_utf8_are_bad_rows(tmp_path):
    table = pa.table({"image": [image(0), image(1)], "label": [b"caf\xe9", b"tea"]})
    rows = rows_of(found(write_table(tmp_path / "a.parquet", table)))
    assert reasons_in(rows) == ["label_not_utf8"]


@FORMATS
@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            pa.table({"photo": [b"x"], "label": [1]}),
            r"column 'image' .*found.* photo \(binary\), lab",
        ),
        (pa.table({"image": [b"x"], "id": [1]}), r"column 'label' .*label_column.* id \(int64\)"),
        (pa.table({"image": ["x.jpg"], "label": [1]}), r"column 'image' of type binary"),
        (pa.table({"image": [{"path": "x"}], "label": [1]}), r"struct with binary 'bytes'"),
        (pa.table({"image": [b"x"], "label": [1.0]}), r"'label' of type integer or text"),
    ],
)
def test_missing_or_strange_columns_are_told_with_those_found(
    tmp_path, name, is_stream, table, words
):
    folder = write_table(tmp_path / name, table, is_stream=is_stream)
    with pytest.raises(RecordError, match=words):
        found(folder)
    with pytest.raises(RecordError, match=words):
        rows_of(found(folder, labels="integers"))


def test_columns_have_the_names_of_the_configuration(tmp_path):
    table = table_of(samples()).rename_columns(["photo", "who"])
    folder = write_table(tmp_path / "deep" / "a.feather", table)
    names = {"image_column": "photo", "label_column": "who"}
    assert samples_in(rows_of(found(folder.parent, **names), **names)) == samples()


@FORMATS
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.99])
def test_a_table_that_is_cut_off_is_an_error(tmp_path, name, is_stream, kept):
    write_table(tmp_path / name, table_of(samples()), is_stream=is_stream)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(RecordError, match=rf"{name}: expected a Parquet or Arrow file.*upload it"):
        found(tmp_path)


def test_damage_within_the_pages_is_an_error_that_names_the_file(tmp_path):
    write_table(tmp_path / "a.parquet", table_of(samples()))
    whole = bytearray((tmp_path / "a.parquet").read_bytes())
    whole[4:60] = b"\xff" * 56
    (tmp_path / "a.parquet").write_bytes(whole)
    with pytest.raises(RecordError, match=r"a\.parquet: expected .* found damage"):
        rows_of(found(tmp_path))


class Failing(io.RawIOBase):
    """A file whose store fails at the third read."""

    def __init__(self, reader):
        self.reader, self.num_reads = reader, 0
        self.seek, self.tell = reader.seek, reader.tell

    def readable(self):
        return True

    def read(self, size=-1):
        self.num_reads += 1
        if self.num_reads > 2:
            raise StorageError("the store answered 503")
        return self.reader.read(size)


def test_a_store_that_fails_within_a_table_is_a_storage_error(tmp_path, monkeypatch):
    source = found(write_table(tmp_path / "a.parquet", table_of(samples())))
    items = list(source.items(1 << 40))
    real = storage.open_seekable

    @contextmanager
    def failing(uri):
        with real(uri) as reader:
            yield Failing(reader)

    monkeypatch.setattr(storage, "open_seekable", failing)
    with pytest.raises(StorageError, match="503"):
        list(read(items[0], judge(source)))


def test_batches_are_small_however_large_a_row_group_is(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "_BATCH_BYTES", 4000)
    path = tmp_path / "a.parquet"
    write_table(path, table_of(samples(100)), rows=100)
    with table_files.open_table(str(path)) as table:
        batches = list(table.batches(0, 1, ["image", "label"]))
    assert max(batch.num_rows for batch in batches) < 10
    assert samples_in(rows_of(found(tmp_path))) == samples(100)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 9000),
    st.integers(1, 9),
    st.integers(0, 20),
    st.sampled_from([("a.parquet", False), ("a.arrow", False), ("a.arrow", True)]),
)
def test_any_item_size_gives_the_rows_of_one_item_in_order(item_bytes, rows, count, form):
    table = table_of(samples(20)).slice(0, count)
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder) / form[0], table, rows=rows, is_stream=form[1])
        source = found(folder)
        assert list(source.items(item_bytes))
        assert samples_in(rows_of(source, item_bytes)) == samples(20)[:count]


@FORMATS
@pytest.mark.parametrize("item_bytes", [1, 2000, 1 << 40])
def test_the_offset_of_a_bad_row_counts_from_the_beginning_of_the_file(
    tmp_path, name, is_stream, item_bytes
):
    some = [(b"no image" if number in {3, 13, 14} else image(number), 1) for number in range(20)]
    source = found(write_table(tmp_path / name, table_of(some), rows=4, is_stream=is_stream))
    rows = rows_of(source, item_bytes)
    assert [row.offset for row in rows if row.bad is not None] == [3, 13, 14]


@FORMATS
def test_text_that_is_not_utf8_is_a_bad_row_and_no_damage(tmp_path, name, is_stream):
    labels = pa.array([b"caf\xe9", b"tea"]).view(pa.string())
    images = [{"bytes": image(n), "path": None} for n in range(2)]
    table = pa.table({"image": images, "label": labels})
    rows = rows_of(found(write_table(tmp_path / name, table, is_stream=is_stream)))
    assert reasons_in(rows) == ["label_not_utf8"]
    assert samples_in(rows) == [(image(1), b"tea")]
