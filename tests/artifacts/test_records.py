from contextlib import suppress

import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plsc.artifacts.records import (
    BadRowError,
    Reason,
    Record,
    decode_image,
    parse_label,
    split_columns,
    to_line,
)
from plsc.conf.schema import ColumnOrder
from tests.preprocess.rows import image, line, swapped

IMAGE = pybase64.b64encode(image())
AUTO = ColumnOrder.auto


def parsed(row, order=AUTO, *, num_classes=0):
    text, label, found = split_columns(row, order)
    number = parse_label(label, num_classes=num_classes)
    return Record(decode_image(text), number), found


def reason_of(row, **settings):
    with pytest.raises(BadRowError) as caught:
        parsed(row, **settings)
    assert str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("order", [ColumnOrder.image_label, ColumnOrder.label_image])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_both_column_orders_of_every_format_are_read_and_told(form, order, end):
    row = to_line(Record(image(3, form=form), 7))
    row = row if order is ColumnOrder.image_label else swapped(row)
    assert parsed(row.rstrip(b"\n") + end) == (Record(image(3, form=form), 7), order)


@pytest.mark.parametrize("label", [123, b"123", "Жук".encode()])
def test_what_is_written_is_read_again(label):
    text, found, order = split_columns(to_line(Record(image(9), label)), AUTO, is_named=True)
    assert (decode_image(text), order) == (image(9), ColumnOrder.image_label)
    assert found == (label if isinstance(label, bytes) else b"123")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (IMAGE, Reason.COLUMNS),
        (IMAGE + b"\t3\t4", Reason.COLUMNS),
        (IMAGE + b" 3", Reason.COLUMNS),
        (b"12\t34", Reason.COLUMN_ORDER),
        (b"what\tis this", Reason.COLUMN_ORDER),
        (b"cat\tAAAA", Reason.COLUMN_ORDER),
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
        (b"0" * 30 + b"7", 7),
        (b"%d" % (2**63 - 1), 2**63 - 1),
    ],
)
def test_unusual_spellings_of_a_label_are_read(text, label):
    assert parse_label(text) == label


def test_a_given_order_is_kept_to():
    row = line(1, 5).rstrip(b"\n")
    assert reason_of(row, order=ColumnOrder.label_image) is Reason.NOT_AN_INTEGER


def test_a_name_that_begins_as_an_image_does_leaves_the_order_open():
    with pytest.raises(BadRowError, match=r"set preprocess\.column_order"):
        split_columns(IMAGE + b"\tQkl", AUTO, is_named=True)
    assert split_columns(IMAGE + b"\tQkl", ColumnOrder.image_label, is_named=True)[1] == b"Qkl"


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_fail_otherwise(row):
    with suppress(BadRowError):
        assert parsed(row)[0].label >= 0
