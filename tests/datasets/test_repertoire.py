from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from plsc.datasets.fonts import find_files
from plsc.datasets.repertoire import choose_repertoire
from plsc.datasets.survey import survey
from plsc.datasets.twins import look_alikes
from tests.datasets.typefaces import IDEOGRAPHS, rectangles, write_font

FIRST, SECOND, THIRD = IDEOGRAPHS[:3]


def design(name):
    return {char: rectangles(char, name) for char in IDEOGRAPHS}


def choose(folder, tmp_path, *, min_faces=2):
    work = tmp_path / "work"
    work.mkdir()
    surveyed, _ = survey(find_files(folder), work, processes=2)
    with ThreadPoolExecutor(2) as pool:
        return choose_repertoire(pool, surveyed, min_faces=min_faces)


def chosen(folder, tmp_path, **options):
    return {
        char: {face.name.split("@")[0] for face in faces}
        for char, faces in choose(folder, tmp_path, **options).characters().items()
    }


def test_classes_are_what_enough_faces_draw(tmp_path):
    fonts = tmp_path / "fonts"
    for name, left_out in (("A", ""), ("B", FIRST), ("C", FIRST + SECOND)):
        drawings = {char: boxes for char, boxes in design(name).items() if char not in left_out}
        write_font(fonts / f"{name}.ttf", drawings, family=name)
    assert chosen(fonts, tmp_path, min_faces=2) == {
        char: {"A", "B"} if char == SECOND else {"A", "B", "C"} for char in IDEOGRAPHS[1:]
    }


def test_characters_that_two_families_draw_alike_are_one_class(tmp_path):
    fonts = tmp_path / "fonts"
    for name in "ABC":
        drawings = design(name)
        if name != "C":
            drawings[SECOND] = drawings[FIRST]
        write_font(fonts / f"{name}.ttf", drawings, family=name)
    assert set(chosen(fonts, tmp_path)) == set(IDEOGRAPHS) - {SECOND}


def test_a_drawing_that_one_family_alone_gives_to_two_characters_shows_the_first(tmp_path):
    fonts = tmp_path / "fonts"
    for name in "ABC":
        drawings = design(name)
        if name == "A":
            drawings[SECOND] = drawings[FIRST]
        write_font(fonts / f"{name}.ttf", drawings, family=name)
    characters = chosen(fonts, tmp_path)
    assert characters[FIRST] == {"A", "B", "C"}
    assert characters[SECOND] == {"B", "C"}


def test_faces_of_one_design_count_once_and_have_one_family(tmp_path):
    fonts = tmp_path / "fonts"
    write_font(fonts / "a.ttf", design("A"), family="A")
    variant = design("A") | {FIRST: rectangles("changed"), "\u5000": rectangles("more")}
    write_font(fonts / "v.ttf", variant, family="AMono")
    write_font(fonts / "b.ttf", design("B") | {"\u5000": rectangles("b")}, family="B")
    repertoire = choose(fonts, tmp_path)
    characters = repertoire.characters()
    assert len(characters[SECOND]) == len(characters["\u5000"]) == 2
    assert {face.family for faces in characters.values() for face in faces} == {"AMono", "B"}


def test_a_face_whose_character_map_is_wrong_for_a_block_is_left_out_there(tmp_path):
    fonts = tmp_path / "fonts"
    for name in "ABC":
        drawings = design(name)
        if name == "B":  # as cwTeXHeiBold does with Hangul
            boxes = list(drawings.values())
            drawings = dict(zip(drawings, boxes[2:] + boxes[:2], strict=True))
        write_font(fonts / f"{name}.ttf", drawings, family=name)
    assert chosen(fonts, tmp_path) == {char: {"A", "C"} for char in IDEOGRAPHS}


def test_copies_of_one_drawing_in_another_family_are_left_out(tmp_path):
    fonts = tmp_path / "fonts"
    write_font(fonts / "a.ttf", design("A"), family="A")
    write_font(fonts / "b.ttf", design("B") | {THIRD: design("A")[THIRD]}, family="B")
    assert set(chosen(fonts, tmp_path)) == set(IDEOGRAPHS) - {THIRD}


def test_the_order_of_files_and_their_folders_do_not_matter(tmp_path):
    for place, names in (("one", "ABC"), ("two", "CBA")):
        for number, name in enumerate(names):
            path = tmp_path / place / f"{place * number}" / f"{number}.ttf"
            write_font(path, design(name), family=name)
    first, second = (chosen(tmp_path / place, tmp_path / place) for place in ("one", "two"))
    assert first == second
    assert len(first) == len(IDEOGRAPHS)


@pytest.mark.parametrize("start", [0x41, 0x4E00], ids=["letters", "ideographs"])
def test_twins_are_found_among_thousands_as_by_comparing_all(start):
    random = np.random.default_rng(0)
    blocks = random.integers(20, 200, (3000, 8, 8), np.uint8)
    shapes = blocks.repeat(4, 1).repeat(4, 2)
    noise = random.integers(-20, 20, (300, 32, 32))
    shapes[1000:1300] = shapes[:300] + noise
    codes = np.arange(start, start + len(shapes), dtype=np.uint32)
    rows = random.permutation(len(shapes))
    pairs = look_alikes(codes, shapes[np.argsort(rows)], rows)
    assert pairs.tolist() == [[number, number + 1000] for number in range(300)]


def test_of_no_drawings_none_are_twins():
    nothing = np.zeros(0, np.int64)
    pairs = look_alikes(nothing.astype(np.uint32), np.zeros((0, 32, 32), np.uint8), nothing)
    assert pairs.shape == (0, 2)
