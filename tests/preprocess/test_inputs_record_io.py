import struct
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plsc.artifacts.records import BadRowError, Reason
from plsc.errors import RecordError
from plsc.preprocess.inputs import record_io_format, record_io_reading
from plsc.preprocess.inputs.record_io_format import parse_image_record, take_record, whole_label
from tests.preprocess.layouts import (
    MAGIC,
    chunked,
    found,
    packed,
    reasons_in,
    rows_of,
    samples,
    samples_in,
    write_rec,
)
from tests.preprocess.rows import image

IDX = pytest.mark.parametrize("has_index", [True, False])

with_magic = st.lists(st.sampled_from([MAGIC, b"abcd", b"x", b"\xed\x0a", b""]), max_size=12).map(
    b"".join
)


@given(st.lists(with_magic, min_size=1, max_size=4))
def test_records_of_any_content_come_back_whatever_magic_they_hold(contents):
    written = b"".join(map(chunked, contents))
    at, back = 0, []
    while at < len(written):
        content, at = take_record(written, at)
        back.append(content)
    assert (back, at) == (contents, len(written))


@given(with_magic, st.data())
def test_a_record_that_is_not_all_there_asks_for_more(content, data):
    written = chunked(content)
    end = len(written.rstrip(b"\0"))
    kept = data.draw(st.integers(0, max(0, min(end, len(written) - 4) - 1)))
    assert take_record(written[:kept]) is None


@given(st.binary(max_size=120))
def test_no_bytes_make_the_parser_fail_otherwise(content):
    for beginning in (b"", MAGIC, MAGIC + struct.pack("<I", 1 << 29 | 4)):
        with suppress(BadRowError):
            taken = take_record(beginning + content)
            if taken is not None:
                whole_label(parse_image_record(taken[0]).labels)


def test_lengths_and_label_counts_are_limited_before_anything_is_held(monkeypatch):
    with pytest.raises(BadRowError, match="bytes are more than"):
        take_record(MAGIC + struct.pack("<I", (1 << 29) - 1) + bytes(100))
    with pytest.raises(BadRowError, match="4294967295 labels do not fit"):
        parse_image_record(packed(b"image", 1.0, flag=2**32 - 1))
    monkeypatch.setattr(record_io_format, "LINE_LIMIT_BYTES", 40)
    with pytest.raises(BadRowError, match="bytes are more than"):
        take_record(chunked((b"1234" + MAGIC) * 20))


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (0.5, Reason.NOT_AN_INTEGER),
        (float("nan"), Reason.NOT_AN_INTEGER),
        (float("inf"), Reason.NOT_AN_INTEGER),
        (-3.0, Reason.NEGATIVE),
        (2.0**24, Reason.INEXACT),
        (2.0**24 - 1, None),
        ([7.0, 1.0, 2.0], None),
    ],
)
@IDX
def test_a_label_that_float32_cannot_be_trusted_with_is_a_bad_row(
    tmp_path, label, reason, has_index
):
    write_rec(tmp_path, samples(3), has_index=has_index, extra=[packed(image(9), label)])
    rows = rows_of(found(tmp_path))
    assert reasons_in(rows) == ([reason.value] if reason else [])
    if reason is None:
        expected = int(label[0] if isinstance(label, list) else label)
        assert samples_in(rows)[-1] == (image(9), expected)


@IDX
@pytest.mark.parametrize("has_header", [True, False])
@pytest.mark.parametrize("item_bytes", [1, 2500, 1 << 40])
def test_images_are_read_and_header_and_identities_are_not(
    tmp_path, has_index, has_header, item_bytes
):
    write_rec(tmp_path, samples(), has_header=has_header, has_index=has_index, identities=4)
    source = found(tmp_path)
    rows = rows_of(source, item_bytes)
    assert samples_in(rows) == samples()
    assert reasons_in(rows) == []
    blank = 0 if has_index or not has_header else 5
    assert len(rows) == len(samples()) + blank
    assert list(source.files) == ["train.rec", "train.idx"][: 2 if has_index else 1]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9000), st.lists(with_magic, max_size=8), st.booleans())
def test_any_item_size_gives_the_rows_of_one_item_in_order(item_bytes, tails, has_header):
    some = [(image(n) + tail, n) for n, tail in enumerate(tails)]
    with tempfile.TemporaryDirectory() as folder:
        source = found(write_rec(Path(folder), some or samples(1), has_header=has_header))
        assert samples_in(rows_of(source, item_bytes)) == (some or samples(1))


def damaged(folder: Path, at: int, content: bytes) -> None:
    path = folder / "train.rec"
    whole = bytearray(path.read_bytes())
    whole[at : at + len(content)] = content
    path.write_bytes(whole)


@IDX
@pytest.mark.parametrize(
    ("place", "content"),
    [(0, b"oops"), (4, b"\xff\xff\xff\x00"), (4, b"\xff\xff\xff\x1f"), (4, b"\0\0\0\x60")],
)
def test_a_damaged_record_is_one_bad_row_and_the_others_are_read(
    tmp_path, has_index, place, content
):
    write_rec(tmp_path, samples(), has_header=False, has_index=has_index)
    start = len(chunked(packed(image(), 0.0))) * 3
    assert (tmp_path / "train.rec").read_bytes()[start : start + 4] == MAGIC
    damaged(tmp_path, start + place, content)
    rows = rows_of(found(tmp_path))
    assert len(reasons_in(rows)) == 1
    assert [row.offset for row in rows if row.bad] == [start]
    assert samples_in(rows) == samples()[:3] + samples()[4:]


def test_a_length_over_the_next_record_does_not_swallow_it(tmp_path):
    write_rec(tmp_path, samples(), has_header=False, has_index=False)
    one = len(chunked(packed(image(), 0.0)))
    damaged(tmp_path, 4, struct.pack("<I", 2 * one - 8))
    rows = rows_of(found(tmp_path))
    assert reasons_in(rows) == ["damaged_record"]
    assert samples_in(rows) == samples()[1:]


@IDX
def test_a_part_that_is_cut_off_has_bad_rows_where_records_lack(tmp_path, has_index):
    write_rec(tmp_path, samples(), has_header=False, has_index=has_index)
    path = tmp_path / "train.rec"
    one = len(chunked(packed(image(), 0.0)))
    path.write_bytes(path.read_bytes()[: 9 * one + 50])
    rows = rows_of(found(tmp_path))
    assert samples_in(rows) == samples()[:9]
    assert reasons_in(rows) == ["damaged_record"] * (3 if has_index else 1)
    assert "ends" in str(rows[-1].bad) or "the end" in str(rows[-1].bad)


def test_a_long_record_found_in_sequence_is_read_over_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(record_io_reading, "_BLOCK_BYTES", 64)
    write_rec(tmp_path, samples(), has_index=False)
    damaged(tmp_path, len(chunked(packed(b"", [1.0, 2.0]))), b"oops")
    rows = rows_of(found(tmp_path))
    assert samples_in(rows) == samples()[1:]
    assert reasons_in(rows) == ["damaged_record"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("1\t0\nx\t9\n", "expected lines of key TAB offset"),
        ("1\t0\n2\n", "expected lines of key TAB offset"),
        ("1\t0\n2\t-4\n", "the offset -4 is negative"),
        ("1\t0\n1\t8\n", "the key 1 is there twice"),
        ("1\t0\n2\t0\n", "the offset 0 is there twice"),
        ("1\t99999999999999999999\n", "expected lines of key TAB offset"),
        ("", "expected lines of key TAB offset, found none"),
        ("0\t0\n1\t52\n", r"expected the 12 images that record 0 .* tells of, found 1"),
    ],
)
def test_an_index_that_cannot_be_right_is_refused(tmp_path, lines, words):
    write_rec(tmp_path, samples())
    (tmp_path / "train.idx").write_text(lines)
    with pytest.raises(RecordError, match=words):
        rows_of(found(tmp_path))


def test_a_header_too_large_for_float32_loses_no_image(tmp_path):
    write_rec(tmp_path, samples(), identities=3)
    source = found(tmp_path)
    assert len(rows_of(source)) == 12
    count = 2**24 + 2  # the next float32 is 2**24 + 4
    header = packed(b"", [float(count), float(count + 3)])
    damaged(tmp_path, 0, chunked(header))
    with pytest.raises(RecordError, match=f"expected the {count - 3} images"):
        rows_of(found(tmp_path))


def test_an_empty_part_is_one_item_without_rows(tmp_path):
    (tmp_path / "train.rec").write_bytes(b"")
    source = found(tmp_path)
    assert [(item.start, item.stop) for item in source.items(10)] == [(0, 0)]
    assert rows_of(source) == []
