import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plsc import transforms
from plsc.artifacts.records import LABEL_LIMIT_BYTES, BadRowError, Reason
from plsc.preprocess.inputs import judge as judging
from tests.preprocess.layouts import judge
from tests.preprocess.rows import SIZE, image

FORMS = ["JPEG", "PNG", "BMP", "WEBP"]


def reason_of(content, **settings):
    with pytest.raises(BadRowError) as caught:
        judge(**settings).image(content)
    assert str(caught.value)
    return caught.value.reason


def name_reason(text):
    with pytest.raises(BadRowError) as caught:
        judge(is_named=True).label(text)
    return caught.value.reason


@pytest.fixture
def decoded(monkeypatch):
    """Give the list of what was decoded completely."""
    seen = []
    monkeypatch.setattr(judging, "decode", lambda one: seen.append(one) or transforms.decode(one))
    return seen


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("decodes", [False, True])
def test_good_images_of_every_format_pass(form, decodes):
    judge(decodes=decodes).image(image(3, form=form))


def test_a_whole_jpeg_is_not_decoded_unless_asked(decoded):
    judge().image(image())
    assert decoded == []
    judge(decodes=True).image(image())
    assert decoded == [image()]


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP"])
def test_other_formats_are_always_decoded(form, decoded):
    judge().image(image(form=form))
    assert len(decoded) == 1


def test_a_jpeg_with_bytes_behind_it_is_decoded_and_good(decoded):
    judge().image(image() + b"\0\0")
    assert len(decoded) == 1


@pytest.mark.parametrize("decodes", [False, True])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.NOT_AN_IMAGE),
        (b"GIF89a" + bytes(50), Reason.NOT_AN_IMAGE),
        (image()[:30], Reason.DAMAGED_IMAGE),
        (image()[:-20], Reason.DAMAGED_IMAGE),
        (image()[:-1], Reason.DAMAGED_IMAGE),
        (image(form="PNG")[:40], Reason.DAMAGED_IMAGE),
        (image(form="PNG")[:-30], Reason.DAMAGED_IMAGE),
        (image(size=SIZE + 1), Reason.DIMENSIONS),
        (image(size=SIZE + 1, form="PNG"), Reason.DIMENSIONS),
        (b"RIFF" + bytes(40), Reason.DAMAGED_IMAGE),
    ],
)
def test_a_bad_image_gets_the_reason_that_fits(content, reason, decodes):
    assert reason_of(content, decodes=decodes) is reason


def test_damage_within_the_pixels_is_found_by_decoding_alone():
    whole = image(form="PNG")
    damaged = whole[:43] + bytes(byte ^ 0xFF for byte in whole[43:53]) + whole[53:]
    assert reason_of(damaged) is Reason.DAMAGED_IMAGE


@given(st.binary(max_size=200))
def test_no_bytes_make_the_judge_fail_otherwise(content):
    for beginning in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF"):
        with pytest.raises(BadRowError):
            judge().image(beginning + content)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", Reason.EMPTY_NAME),
        (b" \r\n", Reason.EMPTY_NAME),
        (b"a" * (LABEL_LIMIT_BYTES + 1), Reason.LONG_NAME),
        (b"caf\xe9", Reason.NOT_UTF8),
        (b"a\0b", Reason.CONTROL),
        (b"a\nb", Reason.CONTROL),
        ("a\u0085b".encode(), Reason.CONTROL),
    ],
)
def test_a_bad_name_gets_the_reason_that_fits(text, reason):
    assert name_reason(text) is reason


@pytest.mark.parametrize("name", [b"a", b"n 01", "Жук".encode(), b"7", b"a" * LABEL_LIMIT_BYTES])
def test_names_are_kept_but_for_blanks_around_them(name):
    assert judge(is_named=True).label(b"  " + name + b"\r\n") == name


def test_integers_become_names_when_names_are_asked_for():
    assert judge(is_named=True).integer(12) == b"12"
    assert judge().integer(12) == 12
    with pytest.raises(BadRowError, match="not below the number of classes, 10"):
        judge(num_classes=10).integer(10)


def test_what_is_wrong_survives_its_way_between_processes():
    bad = pickle.loads(pickle.dumps(BadRowError(Reason.NEGATIVE, "the label is negative")))
    assert (bad.reason, str(bad)) == (Reason.NEGATIVE, "the label is negative")
