import io
from contextlib import suppress

import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plsc.artifacts.records import (
    BadRowError,
    Reason,
    Record,
    RecordParser,
    parse_label,
    read_lines,
    to_line,
)
from plsc.conf.schema import ColumnOrder
from tests.preprocess.rows import SIZE, image, line, swapped

IMAGE = pybase64.b64encode(image())


def parser(order: ColumnOrder = ColumnOrder.auto, num_classes: int = 0) -> RecordParser:
    return RecordParser(order, image_size=SIZE, num_classes=num_classes)


def reason_of(row: bytes, *, num_classes: int = 0, order: ColumnOrder = ColumnOrder.auto) -> Reason:
    with pytest.raises(BadRowError) as caught:
        parser(order, num_classes).parse(row)
    assert str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("order", [ColumnOrder.image_label, ColumnOrder.label_image])
def test_both_column_orders_of_every_format_are_read_and_told(form, order):
    row = to_line(Record(image(3, form=form), 7))
    row = row if order is ColumnOrder.image_label else swapped(row)
    assert parser().parse(row.rstrip(b"\n")) == (Record(image(3, form=form), 7), order)


def test_what_is_written_is_read_again():
    record = Record(image(9), 123)
    assert parser().parse(to_line(record).rstrip(b"\n"))[0] == record


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (IMAGE, Reason.COLUMNS),
        (IMAGE + b"\t3\t4", Reason.COLUMNS),
        (IMAGE + b" 3", Reason.COLUMNS),
        (b"12\t34", Reason.COLUMN_ORDER),
        (b"what\tis this", Reason.COLUMN_ORDER),
        (IMAGE + b"\tcat", Reason.NOT_AN_INTEGER),
        (IMAGE + b"\t", Reason.NOT_AN_INTEGER),
        (IMAGE + b"\t1.0", Reason.NOT_AN_INTEGER),
        (IMAGE + b"\t1_000", Reason.NOT_AN_INTEGER),
        (IMAGE + "\t٣".encode(), Reason.NOT_AN_INTEGER),
        (IMAGE + b"\t-5", Reason.NEGATIVE),
        (IMAGE + b"\t10", Reason.TOO_LARGE),
        (IMAGE + b"\t9223372036854775808", Reason.OVERFLOW),
        (IMAGE + b"\t" + b"9" * 10_000, Reason.OVERFLOW),
        (b"/9j/@@@@\t3", Reason.BASE64),
        (IMAGE[:-5] + b"\t3", Reason.BASE64),
        (IMAGE[:40] + b" " + IMAGE[40:] + b"\t3", Reason.BASE64),
        (b"AAAA',1);--\t3", Reason.BASE64),
        (b"AAAA\t3", Reason.NOT_AN_IMAGE),
        (b"\t3", Reason.NOT_AN_IMAGE),
        (pybase64.b64encode(image()[:30]) + b"\t3", Reason.DAMAGED_IMAGE),
        (pybase64.b64encode(image()[:-20]) + b"\t3", Reason.DAMAGED_IMAGE),
        (pybase64.b64encode(image(form="PNG")[:40]) + b"\t3", Reason.DAMAGED_IMAGE),
        (pybase64.b64encode(image(size=SIZE + 1)) + b"\t3", Reason.DIMENSIONS),
    ],
)
def test_a_bad_row_gets_the_reason_that_fits(row, reason):
    assert reason_of(row, num_classes=10) is reason


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (b"0", 0),
        (b"+5", 5),
        (b" 7\r", 7),
        (b"-0", 0),
        (b"007", 7),
        (b"%d" % (2**63 - 1), 2**63 - 1),
    ],
)
def test_unusual_spellings_of_a_label_are_read(text, label):
    assert parse_label(text) == label


def test_a_given_order_is_kept_to():
    row = line(1, 5).rstrip(b"\n")
    assert reason_of(row, order=ColumnOrder.label_image) is Reason.NOT_AN_INTEGER


def test_rows_tell_their_own_order_when_a_part_mixes_both():
    mixed = parser()
    assert mixed.parse(line(1, 5).rstrip(b"\n"))[1] is ColumnOrder.image_label
    assert mixed.parse(swapped(line(2, 6)).rstrip(b"\n")) == (
        Record(image(2), 6),
        ColumnOrder.label_image,
    )


def test_an_unclear_row_is_judged_in_the_order_of_the_first_good_one():
    usual = parser()
    usual.parse(swapped(line(1, 5)).rstrip(b"\n"))
    with pytest.raises(BadRowError) as caught:
        usual.parse(b"cat\tAAAA")
    assert caught.value.reason is Reason.NOT_AN_INTEGER


def test_a_line_over_the_limit_is_cut_and_the_next_one_is_whole():
    lines = list(read_lines(io.BytesIO(b"a" * 10 + b"\nbb\n" + b"c" * 9), limit_bytes=4))
    assert [(one.number, one.start, one.end, one.row, one.is_whole) for one in lines] == [
        (1, 0, 11, b"aaaa", False),
        (2, 11, 14, b"bb", True),
        (3, 14, 23, b"cccc", False),
    ]


@given(st.binary(), st.integers(1, 12))
def test_lines_cover_every_byte_once_whatever_the_limit(content, limit_bytes):
    lines = list(read_lines(io.BytesIO(content), limit_bytes=limit_bytes))
    assert [one.number for one in lines] == list(range(1, len(lines) + 1))
    assert [one.start for one in lines] == [0, *(one.end for one in lines)][: len(lines)]
    assert b"".join(content[one.start : one.end] for one in lines) == content
    assert len(lines) == content.count(b"\n") + (not content.endswith(b"\n") and content != b"")
    for one in lines:
        whole = content[one.start : one.end].removesuffix(b"\n")
        assert len(one.row) <= limit_bytes
        assert whole.rstrip(b"\r\n") == one.row if one.is_whole else whole.startswith(one.row)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_fail_otherwise(row):
    with suppress(BadRowError):
        assert parser().parse(row)[0].label >= 0
