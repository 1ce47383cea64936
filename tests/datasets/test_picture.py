import dataclasses

import numpy as np
import pytest

from plsc.datasets.faces import FACES, ink
from plsc.datasets.picture import paint, paint_quickly
from plsc.datasets.recipes import ROUGH, SMOOTH
from plsc.transforms import decode

LUMA = np.array([0.299, 0.587, 0.114])
PLAIN = dataclasses.replace(
    SMOOTH, rotation_deg=0, shear=0, zoom=0, shift=0, blur=0, noise=0, inverted=0
)


def pixels(style=SMOOTH, char="R", face=FACES[0], size=64, key=(0,)):
    return decode(paint(char, face, image_size=size, style=style, key=key))


@pytest.mark.parametrize("size", [32, 64, 112])
def test_a_picture_is_rgb_of_the_asked_size(size):
    assert pixels(size=size).shape == (size, size, 3)


def test_the_same_names_give_the_same_bytes_and_any_other_name_other_bytes():
    def content(char="R", face=FACES[0], key=(0, "train", 1)):
        return paint(char, face, image_size=64, style=SMOOTH, key=key)

    assert content() == content()
    others = [
        content("S"),
        content(face=FACES[1]),
        content(key=(1, "train", 1)),
        content(key=(0, "train", 2)),
    ]
    assert len({content(), *others}) == 5


@pytest.mark.parametrize("style", [SMOOTH, ROUGH], ids=["smooth", "rough"])
def test_ink_and_paper_differ_enough_to_be_legible(style):
    quiet = dataclasses.replace(style, noise=0, blur=0)
    for number in range(30):
        luma = pixels(quiet, "H", key=(number,)) @ LUMA
        low, high = np.percentile(luma, [2, 98])
        assert high - low >= style.contrast - 20, number


@pytest.mark.parametrize("inverted", [0, 1])
def test_ink_is_dark_on_light_paper_unless_inverted(inverted):
    style = dataclasses.replace(PLAIN, inverted=inverted)
    for number in range(10):
        luma = pixels(style, "R", key=(number,)) @ LUMA
        corner, ink = luma[0, 0], luma[np.abs(luma - luma[0, 0]) > 60].mean()
        assert (ink > corner) == bool(inverted)


def test_blending_never_wraps_around():
    """With wrapped integers, outlines would be brighter than paper or darker than ink."""
    for number in range(30):
        picture = pixels(PLAIN, "&", key=(number,)).astype(int)
        paper = picture[:4, :4].reshape(-1, 3).mean(axis=0)
        distance = np.abs(picture - paper).sum(axis=2)
        ink = picture[distance > np.percentile(distance, 97)].mean(axis=0)
        low, high = np.minimum(paper, ink), np.maximum(paper, ink)
        outside = np.maximum(picture - high, 0) + np.maximum(low - picture, 0)
        assert np.mean(outside > 40) < 0.01, number


@pytest.mark.parametrize("style", [SMOOTH, ROUGH], ids=["smooth", "rough"])
def test_the_character_stays_inside_the_picture(style):
    quiet = dataclasses.replace(style, noise=0)
    for number in range(40):
        picture = pixels(quiet, "M", key=(number,)).astype(int)
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert np.abs(border - np.median(border, axis=0)).mean() < 10, number


@pytest.mark.parametrize("style", [SMOOTH, ROUGH], ids=["smooth", "rough"])
def test_quick_pictures_look_like_the_others_in_color_noise_and_size(style):
    drawing = ink("R", FACES[0])
    quick = [
        decode(paint_quickly(drawing, image_size=64, style=style, key=(number,)))
        for number in range(60)
    ]
    usual = [pixels(style, key=(number,)) for number in range(60)]
    assert {picture.shape for picture in quick} == {(64, 64, 3)}
    for measure, tolerance in ((np.mean, 12), (np.std, 8), (noise_of, 2)):
        first, second = (np.mean([measure(each) for each in many]) for many in (quick, usual))
        assert abs(first - second) < tolerance, measure.__name__


def noise_of(picture):
    """Return how much neighbors on the paper, in the corners, differ."""
    return np.abs(np.diff(picture[:5].astype(int), axis=1)).mean()


def test_a_quick_picture_never_wraps_around():
    loud = dataclasses.replace(ROUGH, noise=60)
    drawing = ink("&", FACES[0])
    for number in range(20):
        plain = paint_quickly(
            drawing,
            image_size=64,
            style=dataclasses.replace(loud, noise=0, rotation_deg=0, shift=0),
            key=(number,),
        )
        assert decode(plain).std(axis=(0, 1)).max() > 20
        noisy = decode(paint_quickly(drawing, image_size=64, style=loud, key=(number,))).astype(int)
        jumps = np.abs(np.diff(noisy[:4], axis=1))
        assert np.mean(jumps > 230) < 0.01, number


def test_a_quick_picture_depends_on_its_key_alone():
    drawing = ink("R", FACES[0])
    first, again, other = (
        paint_quickly(drawing, image_size=64, style=SMOOTH, key=key)
        for key in (("a",), ("a",), "b")
    )
    assert first == again != other
