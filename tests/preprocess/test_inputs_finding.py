from collections import Counter

import pytest

from plsc.errors import RecordError
from tests.preprocess.layouts import (
    found,
    rows_of,
    samples,
    samples_in,
    table_of,
    write_class_folders,
    write_label_txt,
    write_rec,
    write_table,
    write_tar,
)
from tests.preprocess.rows import line, write_parts

LAYOUTS = [
    "records",
    "image_files",
    "class_folders",
    "record_io",
    "table",
    "arrow",
    "stream",
    "tar",
]


def write(layout, folder, some):
    if layout == "records":
        return write_parts(folder, {"part": [line(n, label) for n, (_, label) in enumerate(some)]})
    if layout in {"arrow", "stream"}:
        path = folder / "a.arrow"
        return write_table(path, table_of(some), is_stream=layout == "stream")
    if layout == "table":
        return write_table(folder / "a.parquet", table_of(some))
    return {
        "image_files": write_label_txt,
        "class_folders": write_class_folders,
        "record_io": write_rec,
        "tar": write_tar,
    }[layout](folder, some)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("item_bytes", [1, 1500, 1 << 40])
def test_every_layout_of_the_same_images_gives_the_same_samples(tmp_path, layout, item_bytes):
    some = samples(23)
    source = found(write(layout, tmp_path / "data", some), labels="integers")
    assert source.layout == ("table" if layout in {"arrow", "stream"} else layout)
    assert Counter(samples_in(rows_of(source, item_bytes))) == Counter(some)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_items_say_how_much_they_are_and_rows_how_much_they_took(tmp_path, layout):
    folder = write(layout, tmp_path / "data", samples(60))
    source = found(folder)
    items = list(source.items(10_000))
    assert len(items) > 1 or layout in {"stream", "tar"}
    assert [item.part for item in items] == sorted(item.part for item in items)
    expected = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert sum(item.size_bytes for item in items) == pytest.approx(expected, rel=0.35)
    took = sum(row.size_bytes for row in rows_of(source, 10_000))
    assert took == pytest.approx(sum(item.size_bytes for item in items), rel=0.35)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_of_the_listing_does_not_matter(tmp_path, layout, monkeypatch):
    folder = write(layout, tmp_path / "data", samples(20))
    expected = list(found(folder).items(3000)), list(found(folder).files)
    listed = list(__import__("plsc").storage.list_objects(f"{folder}/"))
    monkeypatch.setattr("plsc.storage.list_objects", lambda prefix: reversed(listed))
    assert (list(found(folder).items(3000)), list(found(folder).files)) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_files_beside_the_input_do_not_make_another_data_set(tmp_path, layout):
    folder = write(layout, tmp_path / "data", samples())
    before = found(folder).files
    for name in ("lfw.bin", "property", "README.md", ".hidden.jpg"):
        (folder / name).write_bytes(b"pairs")
    (folder / "sub").mkdir()
    (folder / "sub" / "agedb_30.bin").write_bytes(b"pairs")
    assert found(folder).files == before


def test_no_layout_is_told_with_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "lfw.bin").write_bytes(b"")
    with pytest.raises(RecordError, match=r"file_list\.txt .* or label\.txt .*\*\.rec.*lfw\.bin"):
        found(tmp_path)
    with pytest.raises(RecordError, match="found nothing"):
        found(tmp_path / "nowhere")


def test_a_layout_that_is_asked_for_but_not_there_is_told(tmp_path):
    write_label_txt(tmp_path / "data", samples())
    with pytest.raises(RecordError, match=r"expected WebDataset .*found images/00000000\.jpg"):
        found(tmp_path / "data", layout="tar")


def test_the_list_wins_over_other_layouts_and_says_so(tmp_path, caplog):
    write_label_txt(tmp_path / "data", samples())
    write_tar(tmp_path / "data", samples())
    write_parts(tmp_path / "data", {"part": [line(1, 1)]})
    assert found(tmp_path / "data").layout == "records"
    assert "not used: image_files, tar" in caplog.text
    caplog.clear()
    assert found(tmp_path / "data", layout="image_files").layout == "image_files"
    assert not caplog.text


def test_images_that_label_txt_names_are_not_taken_for_class_folders(tmp_path, caplog):
    assert found(write_label_txt(tmp_path / "data", samples())).layout == "image_files"
    assert not caplog.text


@pytest.mark.parametrize(
    ("layout", "labels", "is_named"),
    [
        ("records", "auto", False),
        ("records", "names", True),
        ("image_files", "auto", False),
        ("class_folders", "auto", True),
        ("class_folders", "integers", False),
        ("record_io", "auto", False),
        ("record_io", "names", True),
        ("table", "auto", False),
        ("table", "names", True),
        ("tar", "auto", False),
    ],
)
def test_labels_are_names_where_asked_or_usual(tmp_path, layout, labels, is_named):
    source = found(write(layout, tmp_path / "data", samples()), labels=labels)
    assert source.is_named is is_named
    kinds = {type(label) for _, label in samples_in(rows_of(source))}
    assert kinds == {bytes if is_named else int}


def test_the_uri_may_be_written_in_several_ways(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    write_parts(tmp_path, {"sub/part": [line(1, 1)]})
    monkeypatch.chdir(tmp_path.parent)
    for uri in (f"{tmp_path}/", f"file://{tmp_path}", f"./{tmp_path.name}"):
        source = found(uri)
        assert list(source.files) == ["sub/part"]
        assert source.files["sub/part"].size_bytes == len(line(1, 1))


def test_a_name_that_no_item_could_carry_is_refused_in_every_layout(tmp_path):
    write_tar(tmp_path, samples(2), b"caf\xe9.tar".decode("utf-8", "surrogateescape"))
    with pytest.raises(RecordError, match=r"expected file names in UTF-8, found 'caf.udce9\.tar'"):
        found(tmp_path)
