import logging

import pytest

from plsc.errors import RecordError
from tests.preprocess.layouts import found, reasons_in, rows_of, samples_in
from tests.preprocess.rows import image


def write(folder, names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image(number))
    return folder


def test_the_first_folder_names_the_class_and_deeper_ones_belong_to_it(tmp_path):
    names = ["ann/1.jpg", "ann/2021/2.JPEG", "bob b/3.png", "Жук/4.webp"]
    source = found(write(tmp_path, names))
    assert source.is_named
    got = {(row.label, row.beginning) for row in rows_of(source)}
    assert {label for label, _ in got} == {b"ann", b"bob b", "Жук".encode()}
    assert len(samples_in(rows_of(source))) == 4


def test_hidden_and_other_files_are_ignored_and_counted(tmp_path, caplog):
    others = [".git/1.jpg", "ann/.cache/1.jpg", "ann/._1.jpg", "ann/notes.txt", "top.jpg"]
    with caplog.at_level(logging.INFO):
        source = found(write(tmp_path, ["ann/1.jpg", *others]))
    assert list(source.files) == ["ann/1.jpg"]
    assert "5 files are not read" in caplog.text


def test_folders_may_be_numbers_and_others_are_bad_rows_then(tmp_path):
    source = found(write(tmp_path, ["0007/1.jpg", "12/2.jpg", "cat/3.jpg"]), labels="integers")
    rows = rows_of(source)
    assert [label for _, label in samples_in(rows)] == [7, 12]
    assert reasons_in(rows) == ["label_not_an_integer"]
    assert rows[2].beginning == b"cat/3.jpg"


def test_items_are_runs_of_sorted_files_of_about_the_size_asked_for(tmp_path):
    names = [f"{label}/{number}.jpg" for label in "ab" for number in range(10)]
    source = found(write(tmp_path, names))
    items = list(source.items(3 * len(image()) + 20))
    assert [name for item in items for name in item.files] == sorted(names)
    assert [len(item.files) for item in items] == [3] * 6 + [2]
    assert [item.part for item in items] == [item.files[0] for item in items]
    assert [(item.start, item.stop) for item in items][:2] == [(0, 3), (3, 6)]


def test_a_name_that_no_item_could_carry_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / b"caf\xe9.jpg".decode("utf-8", "surrogateescape")).write_bytes(image())
    with pytest.raises(RecordError, match="expected file names in UTF-8"):
        found(tmp_path)


def test_a_row_tells_its_own_file_whatever_the_item(tmp_path):
    names = [f"{label}/{number}.jpg" for label in "ab" for number in range(10)]
    write(tmp_path, names)
    (tmp_path / "b" / "7.jpg").write_bytes(b"no image")
    source = found(tmp_path)
    for item_bytes in (1, 3 * len(image()), 1 << 40):
        (bad,) = [row for row in rows_of(source, item_bytes) if row.bad is not None]
        assert (bad.uri, bad.offset) == (str(tmp_path / "b" / "7.jpg"), 0)
