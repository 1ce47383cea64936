import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plsc import storage
from plsc.errors import StorageError
from plsc.preprocess.inputs import fetching, read
from tests.preprocess.layouts import (
    found,
    judge,
    reasons_in,
    rows_of,
    samples,
    samples_in,
    write_class_folders,
    write_label_txt,
)
from tests.preprocess.rows import image


def write(folder: Path, lines: list[str], count: int = 3) -> Path:
    write_label_txt(folder, samples(count))
    (folder / "label.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_names_and_labels_are_split_at_the_last_blank(tmp_path):
    lines = ["images/00000000.jpg 4", "images/00000001.jpg\t0", "./images/a b.jpg  4 \r"]
    write(tmp_path / "data", lines)
    (tmp_path / "data" / "images" / "a b.jpg").write_bytes(image(7))
    rows = rows_of(found(tmp_path / "data"))
    assert samples_in(rows) == [(image(0), 4), (image(1), 0), (image(7), 4)]
    assert {row.form for row in rows} == {"image_files"}


def test_bad_lines_have_reasons_and_blank_ones_none(tmp_path):
    lines = ["images/00000000.jpg 0", "images/9.jpg 1", "images/00000001.jpg", "images/0 x", ""]
    write(tmp_path / "data", [*lines, "images/00000002.jpg 1"])
    (tmp_path / "data" / "images" / "00000002.jpg").write_bytes(b"no image")
    rows = rows_of(found(tmp_path / "data"))
    assert reasons_in(rows) == ["no_file", "columns", "label_not_an_integer", "not_an_image"]
    assert [bool(row.form) for row in rows] == [True, *[False] * 5]
    assert rows[4].bad is None
    assert rows[1].beginning == b"images/9.jpg 1\n"


@pytest.mark.parametrize(
    "name", ["../x.jpg", "/etc/hostname", "images/../../x.jpg", "a//x.jpg", "label.txt", "images"]
)
def test_a_name_cannot_reach_outside_or_to_what_is_no_input(tmp_path, name):
    (tmp_path / "x.jpg").write_bytes(image())
    write(tmp_path / "data", [f"{name} 1"])
    assert reasons_in(rows_of(found(tmp_path / "data"))) == ["no_file"]


def test_an_image_right_beside_label_txt_is_read_and_matters(tmp_path):
    write(tmp_path / "data", ["x.jpg 1"])
    (tmp_path / "data" / "x.jpg").write_bytes(image(5))
    source = found(tmp_path / "data")
    assert "x.jpg" in source.files
    assert samples_in(rows_of(source)) == [(image(5), 1)]


def test_a_file_over_the_limit_is_a_bad_row(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "LINE_LIMIT_BYTES", 1000)
    write_label_txt(tmp_path / "data", [(image(), 1), (image() + bytes(1000), 1)])
    assert reasons_in(rows_of(found(tmp_path / "data"))) == ["too_long"]


@pytest.mark.parametrize("write_layout", [write_label_txt, write_class_folders])
def test_a_store_that_fails_ends_the_task_but_a_file_that_went_is_a_bad_row(
    tmp_path, monkeypatch, write_layout
):
    source = found(write_layout(tmp_path / "data", samples()), labels="integers")
    next((tmp_path / "data").rglob("*7.jpg")).unlink()
    assert reasons_in(rows_of(source)) == ["no_file"]

    def refuse(uri, **_):
        raise StorageError(f"{uri}: the store answered 503")

    real = storage.open_reader
    monkeypatch.setattr(
        storage,
        "open_reader",
        lambda uri, **span: (refuse if uri.endswith("3.jpg") else real)(uri, **span),
    )
    with pytest.raises(StorageError, match="503"):
        rows_of(source)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12000), st.lists(st.sampled_from(["images/00000001.jpg 1", "", "x 1", "?"])))
def test_any_item_size_gives_the_rows_of_one_item_in_order(item_bytes, lines):
    with tempfile.TemporaryDirectory() as folder:
        source = found(write(Path(folder) / "data", lines))
        whole = [row[1:6] for row in rows_of(source)]
        assert [row[1:6] for row in rows_of(source, item_bytes)] == whole


def test_items_hold_about_as_many_images_as_asked_for(tmp_path):
    source = found(write_label_txt(tmp_path / "data", samples(100)))
    items = list(source.items(10 * len(image())))
    assert len(items) == pytest.approx(10, abs=2)


def test_files_are_read_side_by_side_but_only_a_few_ahead(monkeypatch):
    asked = []
    results = fetching.side_by_side(
        lambda one, _: one * 2, (asked.append(n) or n for n in range(500))
    )
    assert next(results) == 0
    assert len(asked) <= 32
    assert list(results) == [n * 2 for n in range(1, 500)]


@pytest.mark.parametrize(
    "name",
    [
        b"images/\xff.jpg",
        b"images/a\0b.jpg",
        b"images/a\x1bb.jpg",
        b"images/" + b"a" * 300 + b".jpg",
        b"a/" * 600 + b"a.jpg",
    ],
)
def test_a_name_that_no_store_could_be_asked_for_is_a_bad_row(tmp_path, name):
    write_label_txt(tmp_path / "data", samples(2))
    with (tmp_path / "data" / "label.txt").open("ab") as file:
        file.write(name + b" 1\n")
    rows = rows_of(found(tmp_path / "data"))
    assert reasons_in(rows) == ["no_file"]
    assert str(rows[2].bad).encode(), "it can be written to the quarantine"
    assert samples_in(rows) == samples(2)


def test_a_file_whose_name_is_not_utf8_does_not_matter(tmp_path):
    folder = write_label_txt(tmp_path / "data", samples(2))
    (folder / "images" / b"\xff.jpg".decode("utf-8", "surrogateescape")).write_bytes(image(9))
    source = found(folder)
    assert len(source.files) == 3
    assert samples_in(rows_of(source)) == samples(2)


def test_a_byte_order_mark_does_not_cost_the_first_row(tmp_path):
    folder = write_label_txt(tmp_path / "data", samples(3))
    lines = (folder / "label.txt").read_bytes()
    (folder / "label.txt").write_bytes(b"\xef\xbb\xbf" + lines)
    assert samples_in(rows_of(found(folder))) == samples(3)


@pytest.mark.parametrize("write_layout", [write_label_txt, write_class_folders])
def test_large_files_do_not_wait_in_memory_beside_each_other(tmp_path, monkeypatch, write_layout):
    monkeypatch.setattr(fetching, "_AHEAD_FILE_BYTES", len(image()) + 20)
    monkeypatch.setattr(fetching, "LINE_LIMIT_BYTES", 2 << 20)
    large = image()[:-2] + bytes(1 << 20) + image()[-2:]
    some = [(large if number % 2 else image(number), 1) for number in range(60)]
    source = found(write_layout(tmp_path / "data", some), labels="integers")
    (item,) = source.items(1 << 40)
    tracemalloc.start()
    try:
        got = [(row.image, row.label) for row in map(checked_peak, read(item, judge(source)))]
    finally:
        tracemalloc.stop()
    assert sorted(got) == sorted(some)


def checked_peak(row):
    """Check what is held besides the rows given so far, and begin anew."""
    now, peak = tracemalloc.get_traced_memory()
    assert peak - now < 8 << 20
    tracemalloc.reset_peak()
    return row


def test_a_file_over_the_limit_is_a_bad_row_though_it_is_read_at_its_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_AHEAD_FILE_BYTES", 500)
    monkeypatch.setattr(fetching, "LINE_LIMIT_BYTES", 1000)
    write_label_txt(tmp_path / "data", [(image(), 1), (image() + bytes(1000), 1)])
    assert reasons_in(rows_of(found(tmp_path / "data"))) == ["too_long"]
