import itertools

import numpy as np
import pytest

from plsc.datasets import alphabet
from plsc.datasets.alphabet import choose_alphabet, difference
from plsc.datasets.faces import FACES

LETTERS = "ABCDEFGHJKLMNOPQRSTUVWXYZÄÁÀÂĂ"


@pytest.mark.parametrize("twins", ["AΑА", "cс", "oOο", "KКK", "µμ", "PР"])  # noqa: RUF001
def test_of_characters_that_look_alike_the_first_is_kept(choose, twins):
    assert list(choose(twins).shapes) == [min(twins)]


def test_letters_that_differ_by_an_accent_are_classes_of_their_own(choose):
    assert set("ABDEGÄÁÀĂ") <= choose(LETTERS).shapes.keys()


def test_no_two_classes_look_alike_in_two_faces(choose):
    shapes = choose(map(chr, range(0xC0, 0x180))).shapes
    assert len(shapes) > 80
    for first, second in itertools.combinations(shapes, 2):
        common = shapes[first].keys() & shapes[second].keys()
        alike = sum(difference(shapes[first][f], shapes[second][f]) < 100 for f in common)
        assert alike < 2, (first, second)


@pytest.mark.parametrize(
    "char",
    [" ", "\u0301", "\u00b2", "\u2081", "\u1d00", "\u2500", "\u2588", "\u212b", "-", "—", "|"],
    ids=lambda char: f"U+{ord(char):04X}",
)
def test_blanks_marks_variants_boxes_and_bars_are_no_classes(choose, char):
    assert not (alphabet.has_its_own_shape(char) and choose([char]).shapes)


def test_a_drawing_unlike_the_others_of_its_character_is_left_out(choose):
    """DejaVu Sans Mono squeezes fractions into one column: another shape altogether."""
    faces = choose("½").shapes["½"]
    assert not [face for face in faces if face.family == "DejaVuSansMono"]


def test_copies_of_a_drawing_count_once(choose):
    for shapes in choose(map(chr, range(0x2190, 0x2200))).shapes.values():
        for first, second in itertools.combinations(shapes.values(), 2):
            assert difference(first, second) >= 20


def test_fit_for_pairs_are_drawn_in_two_families_upright_and_slanted(choose):
    chosen = choose([*LETTERS, *map(chr, range(0x2800, 0x2840))])
    fit = chosen.fit_for_pairs()
    assert "R" in fit
    assert len(fit) < len(chosen.shapes)
    for char in fit:
        faces = chosen.shapes[char]
        assert len({face.family for face in faces}) > 1
        assert {face.is_slanted for face in faces} == {False, True}


def test_candidates_beyond_the_limit_are_dropped_the_same_way_every_time(pool):
    first, again, other = (
        list(choose_alphabet(pool, max_candidates=30, seed=seed).shapes) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert 3 < len(first) <= 30


def test_shapes_are_small_gray_images(choose):
    shape = choose("R").shapes["R"][FACES[0]]
    assert shape.shape == (32, 32)
    assert shape.dtype == np.uint8
