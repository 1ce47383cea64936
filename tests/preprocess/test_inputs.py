from pathlib import Path

import pytest

from plsc.errors import RecordError
from plsc.preprocess import inputs
from plsc.preprocess.stage import run
from tests.preprocess.rows import good_parts, image, line, samples_of, settings, write_parts


def write_images(folder: Path, rows: list[str], count: int = 3) -> Path:
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        (folder / "images" / f"{number:08}.jpg").write_bytes(image(number))
    (folder / "label.txt").write_text("\n".join(rows) + "\n")
    return folder


def test_neither_layout_is_told_with_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "lfw.bin").write_bytes(b"")
    with pytest.raises(RecordError, match=r"expected file_list\.txt .* or label\.txt .*lfw\.bin"):
        inputs.find(str(tmp_path))
    with pytest.raises(RecordError, match="found nothing"):
        inputs.find(str(tmp_path / "nowhere"))


def test_a_missing_part_is_named_with_list_and_line(tmp_path):
    data = write_parts(tmp_path, good_parts())
    (data / "part-1.tsv").unlink()
    with pytest.raises(RecordError, match=r"file_list\.txt, line 2: .*'part-1\.tsv'"):
        inputs.find(str(tmp_path))


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/../part-0.tsv"])
def test_a_list_cannot_reach_outside_its_folder(tmp_path, name):
    (tmp_path / "secret").write_bytes(line(1, 1))
    data = write_parts(tmp_path / "data", {"part-0.tsv": [line(1, 1)]})
    (data / "file_list.txt").write_text(name)
    with pytest.raises(RecordError, match="there is no such file"):
        inputs.find(str(data))


def test_a_part_listed_twice_is_refused_because_its_rows_would_be_doubled(tmp_path):
    data = write_parts(tmp_path, good_parts())
    (data / "file_list.txt").write_text("part-0.tsv\npart-1.tsv\n./part-0.tsv\n")
    with pytest.raises(RecordError, match=r"line 3: 'part-0\.tsv' is on line 1 already"):
        inputs.find(str(data))


def test_blank_lines_and_line_ends_of_windows_in_the_list_do_not_matter(tmp_path):
    data = write_parts(tmp_path, good_parts(num_parts=2))
    (data / "file_list.txt").write_bytes(b"\xef\xbb\xbfpart-1.tsv\r\n\r\n  \r\n./part-0.tsv \n\n")
    assert inputs.find(str(data)).parts == ["part-0.tsv", "part-1.tsv"]


def test_an_empty_list_is_an_error(tmp_path):
    write_parts(tmp_path, {})
    with pytest.raises(RecordError, match="found none"):
        inputs.find(str(tmp_path))


def test_parts_may_lie_in_folders_and_the_uri_may_be_written_in_several_ways(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    write_parts(tmp_path, {"sub/part": [line(1, 1)]})
    monkeypatch.chdir(tmp_path.parent)
    for uri in (f"{tmp_path}/", f"file://{tmp_path}", f"./{tmp_path.name}"):
        found = inputs.find(uri)
        assert found.parts == ["sub/part"]
        assert found.files["sub/part"].size_bytes == len(line(1, 1))


def test_image_files_named_by_label_txt_are_read(tmp_path):
    write_images(
        tmp_path / "data",
        ["images/00000000.jpg 4", "images/00000001.jpg\t0", "./images/00000002.jpg  4 "],
    )
    dataset = run(settings(tmp_path))
    assert sorted(samples_of(dataset.shards)) == sorted(
        [(image(0), 4), (image(1), 0), (image(2), 4)]
    )
    assert dataset.column_order == "files"


def test_bad_lines_of_label_txt_are_quarantined(tmp_path):
    rows = ["images/00000000.jpg 0", "images/9.jpg 1", "images/00000001.jpg", "../x.jpg 1", ""]
    data = write_images(tmp_path / "data", [*rows, "images/00000002.jpg 1"])
    (data / "images" / "00000002.jpg").write_bytes(b"no image")
    dataset = run(settings(tmp_path, "preprocess.max_bad_fraction=0.8"))
    assert dataset.num_samples == 1
    assert dataset.quarantine.reasons == {"columns": 1, "no_file": 2, "not_an_image": 1}
    assert dataset.num_blank_rows == 1


def test_the_list_wins_over_label_txt_and_says_so(tmp_path, caplog):
    write_images(tmp_path, ["images/00000000.jpg 0"])
    write_parts(tmp_path, {"part": [line(1, 1)]})
    assert inputs.find(str(tmp_path)).parts == ["part"]
    assert "label.txt is not used" in caplog.text


def test_other_files_beside_the_input_do_not_make_another_data_set(tmp_path):
    write_images(tmp_path / "data", ["images/00000000.jpg 0"])
    first = run(settings(tmp_path))
    (tmp_path / "data" / "lfw.bin").write_bytes(b"pairs")
    assert run(settings(tmp_path)).uri == first.uri
    (tmp_path / "data" / "images" / "00000000.jpg").write_bytes(image(7))
    assert run(settings(tmp_path)).uri != first.uri


def test_a_row_over_the_limit_is_a_bad_row(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "read_lines", lambda reader: _read_lines(reader, limit_bytes=2000))
    write_parts(tmp_path / "data", {"part": [line(1, 1), b"A" * 5000 + b"\n", line(2, 1)]})
    dataset = run(settings(tmp_path, "preprocess.max_bad_fraction=0.5"))
    assert dataset.num_samples == 2
    assert dataset.quarantine.reasons == {"too_long": 1}


_read_lines = inputs.read_lines
