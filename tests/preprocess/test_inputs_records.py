import gzip
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plsc.artifacts.records import Record, to_line
from plsc.errors import RecordError
from plsc.preprocess.inputs import records
from tests.preprocess.layouts import found, reasons_in, rows_of, samples_in
from tests.preprocess.rows import good_parts, image, line, swapped, write_parts


def zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


def test_a_missing_part_is_named_with_list_and_line(tmp_path):
    data = write_parts(tmp_path, good_parts())
    (data / "part-1.tsv").unlink()
    with pytest.raises(RecordError, match=r"file_list\.txt, line 2: .*'part-1\.tsv'"):
        found(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/../part-0.tsv"])
def test_a_list_cannot_reach_outside_its_folder(tmp_path, name):
    (tmp_path / "secret").write_bytes(line(1, 1))
    data = write_parts(tmp_path / "data", {"part-0.tsv": [line(1, 1)]})
    (data / "file_list.txt").write_text(name)
    with pytest.raises(RecordError, match="there is no such file"):
        found(data)


def test_a_part_listed_twice_is_refused_because_its_rows_would_be_doubled(tmp_path):
    data = write_parts(tmp_path, good_parts())
    (data / "file_list.txt").write_text("part-0.tsv\npart-1.tsv\n./part-0.tsv\n")
    with pytest.raises(RecordError, match=r"line 3: 'part-0\.tsv' is on line 1 already"):
        found(data)


def test_blank_lines_and_line_ends_of_windows_in_the_list_do_not_matter(tmp_path):
    data = write_parts(tmp_path, good_parts(num_parts=2))
    (data / "file_list.txt").write_bytes(b"\xef\xbb\xbfpart-1.tsv\r\n\r\n  \r\n./part-0.tsv \n\n")
    assert list(found(data).files) == ["part-0.tsv", "part-1.tsv"]


def test_an_empty_list_is_an_error(tmp_path):
    write_parts(tmp_path, {})
    with pytest.raises(RecordError, match="found none"):
        found(tmp_path)


LINES = [
    line(1, 5),
    swapped(line(2, 6)),
    b"\n",
    b"  \r\n",
    line(3, 7).replace(b"\n", b"\r\n"),
    b"no record\n",
    b"A" * 3000 + b"\t1\n",
]


def told(row):
    """Return all of a row but its number; errors of one reason are equal."""
    return row._replace(number=0, bad=str(row.bad))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(LINES), max_size=12),
    st.integers(1, 5000),
    st.booleans(),
)
def test_any_item_size_gives_the_rows_of_one_item_in_order(rows, item_bytes, ends):
    content = b"".join(rows)
    with tempfile.TemporaryDirectory() as folder:
        write_parts(Path(folder), {"part": [content if ends else content.rstrip(b"\n")]})
        source = found(folder)
        whole = [told(row) for row in rows_of(source)]
        assert [told(row) for row in rows_of(source, item_bytes)] == whole


def test_items_are_byte_ranges_of_about_the_size_asked_for(tmp_path):
    source = found(write_parts(tmp_path, good_parts(2)))
    for size in (1000, 5000):
        items = list(source.items(size))
        assert all(size // 2 <= item.stop - item.start <= size for item in items)
        by_part = {part: [i for i in items if i.part == part] for part in source.files}
        for part, some in by_part.items():
            assert [i.start for i in some] == [0, *(i.stop for i in some)][:-1]
            assert some[-1].stop == source.files[part].size_bytes


def test_the_row_count_of_items_gives_line_numbers_and_blank_lines_count(tmp_path):
    source = found(write_parts(tmp_path, {"part": [line(1, 1), b"\n", line(2, 1), b"bad\n"]}))
    rows = rows_of(source, 100)
    assert len(rows) == 4
    assert [row.offset for row in rows if row.bad] == [len(line(1, 1)) + 1 + len(line(2, 1))]
    assert (rows[1].image, rows[1].bad) == (b"", None)
    assert rows[3].beginning == b"bad\n"


def test_an_empty_part_is_one_item_without_rows(tmp_path):
    source = found(write_parts(tmp_path, {"part": []}))
    assert [(item.start, item.stop) for item in source.items(100)] == [(0, 0)]
    assert rows_of(source) == []


def test_rows_tell_their_own_order_wherever_the_part_is_cut(tmp_path):
    rows = [line(n, n) if n % 2 else swapped(line(n, n)) for n in range(6)]
    source = found(write_parts(tmp_path, {"part": rows}))
    assert {row.form for row in rows_of(source, 1)} == {"image_label", "label_image"}
    assert samples_in(rows_of(source, 1)) == [(image(n), n) for n in range(6)]


def test_names_are_labels_and_the_image_tells_the_order(tmp_path):
    rows = [
        to_line(Record(image(n), name)) for n, name in enumerate([b"cat", b"7", "Ж я".encode()])
    ]
    source = found(
        write_parts(tmp_path, {"part": [rows[0], swapped(rows[1]), rows[2], b"a\tb\n"]}),
        labels="names",
    )
    got = rows_of(source)
    assert samples_in(got) == [(image(0), b"cat"), (image(1), b"7"), (image(2), "Ж я".encode())]
    assert reasons_in(got) == ["column_order"]


def test_a_row_over_the_limit_is_a_bad_row(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "LINE_LIMIT_BYTES", 2000)
    monkeypatch.setattr(records, "lines_of", _limited(records.lines_of))
    source = found(write_parts(tmp_path, {"part": [line(1, 1), b"A" * 5000 + b"\n", line(2, 1)]}))
    rows = rows_of(source, 700)
    assert reasons_in(rows) == ["too_long"]
    assert len(samples_in(rows)) == 2
    assert rows[1].beginning == b"A" * 120


def _limited(lines_of):
    return lambda *args, **kwargs: lines_of(*args, **kwargs, limit_bytes=2000)


def bulky(count: int = 40) -> list[bytes]:
    noise = random.Random(1)
    return [line(n, n) + noise.randbytes(4000).hex().encode() + b"\n" for n in range(count)]


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstd)])
def test_compressed_parts_give_the_rows_of_plain_ones(tmp_path, suffix, compress):
    rows = bulky()
    half = len(rows) // 2
    members = compress(b"".join(rows[:half])) + compress(b"".join(rows[half:]))
    plain = found(write_parts(tmp_path / "plain", {"part": rows}))
    packed = found(write_parts(tmp_path / "packed", {f"part{suffix}": [members]}))
    items = list(packed.items(1))
    assert [(item.start, item.stop) for item in items] == [(0, len(members))]
    got, expected = rows_of(packed), rows_of(plain)
    assert [row.offset for row in got] == [row.offset for row in expected]
    assert samples_in(got) == samples_in(expected)
    assert reasons_in(got) == reasons_in(expected)
    assert sum(row.size_bytes for row in got) == len(members)


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstd)])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.9999])
def test_a_compressed_part_that_is_cut_off_is_an_error_with_its_place(
    tmp_path, suffix, compress, kept
):
    whole = compress(b"".join(bulky()))
    cut = whole[: int(len(whole) * kept)]
    source = found(write_parts(tmp_path, {f"part{suffix}": [cut]}))
    place = rf"part{suffix}: expected the end of the \w+ stream, found end of file after {len(cut)}"
    with pytest.raises(RecordError, match=f"{place} bytes: upload it again"):
        rows_of(source)


@pytest.mark.parametrize(
    ("suffix", "compress", "where"),
    [
        (".gz", gzip.compress, "begin"),
        (".gz", gzip.compress, "middle"),
        (".gz", gzip.compress, "behind"),
        (".zst", zstd, "begin"),
        (".zst", zstd, "behind"),  # in the middle, only a checksum tells: pyarrow writes none
    ],
)
def test_a_damaged_compressed_part_is_an_error(tmp_path, suffix, compress, where):
    whole = bytearray(compress(b"".join(bulky())))
    if where == "behind":
        whole += b"garbage!"
    else:
        at = 0 if where == "begin" else len(whole) // 2
        whole[at : at + 64] = bytes(byte ^ 0xFF for byte in whole[at : at + 64])
    source = found(write_parts(tmp_path, {f"part{suffix}": [bytes(whole)]}))
    with pytest.raises(RecordError, match=rf"part{suffix}: expected"):
        rows_of(source)
