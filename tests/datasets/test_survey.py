import io
import logging
import struct

import numpy as np
import pytest
from fontTools.ttLib import TTCollection, TTFont

from plsc.datasets.faces import ink
from plsc.datasets.fonts import find_files
from plsc.datasets.survey import survey
from plsc.errors import ConfigError
from tests.datasets.typefaces import (
    IDEOGRAPHS,
    cut_bundled,
    rectangles,
    without_outlines,
    write_font,
)


def look(folder, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    return survey(find_files(folder), work, processes=2)


def chars_of(face):
    return "".join(map(chr, face.codes))


def drawn(*names, chars=IDEOGRAPHS):
    return {char: rectangles(char, *names) for char in chars}


def test_family_and_slant_are_read_and_every_drawing_has_a_shape(tmp_path):
    folder = cut_bundled(tmp_path / "fonts", ("DejaVuSans-Oblique", "STIXGeneral"), "ABC")
    faces, skipped = look(folder, tmp_path)
    told = {(face.face.family, face.face.is_slanted) for face in faces}
    assert told == {("DejaVu-Sans", True), ("STIXGeneral", False)}
    assert not skipped
    for face in faces:
        assert chars_of(face) == "ABC"
        assert face.shapes().shape == (3, 32, 32)
        assert ink("A", face.face) is not None


def test_blank_glyphs_are_left_out_and_counted(tmp_path):
    drawings = drawn() | {char: [] for char in IDEOGRAPHS[:5]}
    write_font(tmp_path / "fonts" / "blank.ttf", drawings)
    (face,), _ = look(tmp_path / "fonts", tmp_path)
    assert chars_of(face) == IDEOGRAPHS[5:]
    assert face.counts["blank"] == 5
    assert face.counts["claimed"] == len(IDEOGRAPHS)


def test_a_drawing_that_many_characters_share_or_that_shows_a_lacking_one_is_a_fallback(tmp_path):
    box = [(0, 0, 500, 700), (600, 0, 700, 90)]  # as .notdef
    drawings = drawn() | dict.fromkeys(IDEOGRAPHS[:9], rectangles("shared")) | {"丫": box}
    write_font(tmp_path / "fonts" / "fallback.ttf", drawings)
    (face,), _ = look(tmp_path / "fonts", tmp_path)
    assert chars_of(face) == IDEOGRAPHS[9:]
    assert face.counts["fallback"] == 10


def test_blocks_and_characters_equal_to_others_are_no_candidates(tmp_path):
    chars = "A\u4e00\uf900\uff21\u0301\u2502 "
    drawings = drawn(chars=sorted(set(chars))) | {"\u4e00": [(0, 0, 900, 60)]}
    write_font(tmp_path / "fonts" / "odd.ttf", drawings)
    (face,), _ = look(tmp_path / "fonts", tmp_path)
    assert chars_of(face) == "A"


def test_unusable_files_are_skipped_by_name_and_with_the_reason(tmp_path, caplog):
    fonts = tmp_path / "fonts"
    good = write_font(fonts / "good.ttf", drawn())
    (fonts / "cut.ttf").write_bytes(good.read_bytes()[:900])
    (fonts / "noise.otf").write_bytes(np.random.default_rng(0).bytes(5000))
    (fonts / "empty.ttf").touch()
    (fonts / "crowd.ttc").write_bytes(b"ttcf\0\1\0\0" + struct.pack(">I", 1 << 30))
    without_outlines(write_font(fonts / "bitmaps.ttf", drawn("other")))
    with caplog.at_level(logging.WARNING, "plsc"):
        faces, skipped = look(fonts, tmp_path)
    assert [face.face.path.name for face in faces] == ["good.ttf"]
    assert sorted(skipped) == ["bitmaps.ttf", "crowd.ttc", "cut.ttf", "empty.ttf", "noise.otf"]
    assert "cannot be scaled" in skipped["bitmaps.ttf"][0]
    assert "1073741824 faces" in skipped["crowd.ttc"][0]
    assert "cut.ttf" in caplog.text


@pytest.mark.slow
def test_a_character_map_of_millions_of_characters_takes_no_more_than_the_limit(tmp_path):
    path = write_font(tmp_path / "fonts" / "bomb.ttf", drawn("bomb"))
    groups = struct.pack(">III", 0x20, 0xFFFFFF00, 1)
    table = struct.pack(">HHIII", 13, 0, 28, 0, 1) + groups
    with TTFont(path, lazy=False) as font:
        font["cmap"].compile = lambda _: struct.pack(">HHHHI", 0, 1, 3, 10, 12) + table
        font.save(path)
    write_font(tmp_path / "fonts" / "good.ttf", drawn())
    faces, skipped = look(tmp_path / "fonts", tmp_path)
    assert [face.face.path.name for face in faces] == ["good.ttf"]
    assert list(skipped) == ["bomb.ttf"]


def test_variants_in_a_collection_add_only_what_earlier_faces_lack(tmp_path):
    fonts = tmp_path / "fonts"
    extra = {"丯": rectangles("extra")}
    one = write_font(fonts / "one", drawn(), family="One")
    two = write_font(fonts / "two", drawn() | extra, family="Two")
    other = write_font(fonts / "other", drawn("other"), family="Other")
    collection = TTCollection()
    collection.fonts = [TTFont(io.BytesIO(path.read_bytes())) for path in (one, two, other)]
    collection.save(fonts / "all.ttc")
    collection.close()
    faces, _ = look(fonts, tmp_path)
    told = {face.face.name.split("@")[0]: (face.face.family, chars_of(face)) for face in faces}
    assert told == {
        "One": ("One", IDEOGRAPHS),
        "Two": ("One", "丯"),
        "Other": ("Other", IDEOGRAPHS),
    }


def test_a_file_that_lies_there_twice_counts_once(tmp_path):
    path = write_font(tmp_path / "a" / "font.ttf", drawn())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "copy.TTF").write_bytes(path.read_bytes())
    assert list(find_files(tmp_path).values()) == [path]


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_folder_without_fonts_is_an_error_that_names_it(tmp_path, name):
    with pytest.raises(ConfigError, match=f"--fonts {tmp_path / name}"):
        find_files(tmp_path / name)
