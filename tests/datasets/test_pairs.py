from collections import Counter

import pytest

from plsc.datasets.pairs import BENCHMARKS, choose_pairs, script_of

CHARS = [*"ABDEFGHKLMNPQRST", *"ДЖЗИЛЦЧШЩЭЮЯ"]


@pytest.fixture
def alphabet(choose):
    return choose(CHARS)


@pytest.fixture(params=BENCHMARKS)
def name(request):
    return request.param


def pairs_of(alphabet, name, *, seed=0):
    chars = alphabet.fit_for_pairs()
    return choose_pairs(alphabet, chars, name=name, num_pairs=120, folds=3, seed=seed)


def test_every_fold_holds_its_same_pairs_and_then_as_many_different_ones(alphabet, name):
    block = [True] * 20 + [False] * 20
    assert [pair.is_same for pair in pairs_of(alphabet, name)] == block * 3


def test_style_and_first_characters_are_equally_frequent_in_both_kinds(alphabet, name):
    pairs = pairs_of(alphabet, name)
    for look in (lambda pair: pair.faces, lambda pair: pair.chars[0]):
        same = Counter(look(pair) for pair in pairs if pair.is_same)
        assert same == Counter(look(pair) for pair in pairs if not pair.is_same)


def test_different_pairs_are_of_one_script_and_do_not_look_alike(alphabet, name):
    for pair in pairs_of(alphabet, name):
        if not pair.is_same:
            (first, second), (face, other_face) = pair.chars, pair.faces
            assert script_of(first) == script_of(second)
            assert not alphabet.look_alike((first, face), (second, other_face))


def test_each_benchmark_pairs_the_faces_it_is_about(alphabet):
    for pair in pairs_of(alphabet, "glyph_cross"):
        assert pair.faces[0].family != pair.faces[1].family
    for pair in pairs_of(alphabet, "glyph_slant"):
        assert [face.is_slanted for face in pair.faces] == [False, True]
    for pair in pairs_of(alphabet, "glyph_rough"):
        assert pair.faces[0] != pair.faces[1]


def test_all_characters_are_used(alphabet, name):
    used = {char for pair in pairs_of(alphabet, name) for char in pair.chars}
    assert used == set(alphabet.fit_for_pairs())


def test_the_seed_decides_the_pairs(alphabet, name):
    assert pairs_of(alphabet, name) == pairs_of(alphabet, name)
    assert pairs_of(alphabet, name) != pairs_of(alphabet, name, seed=1)
