"""What augmentation does to an image, and that each setting does its own part alone."""

import numpy as np
import pytest
from PIL import Image

from plsc.train.loader.augment import Augment, augment, draw

PLACES = np.arange(400)


def picture(size=32):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def changed(settings, places=PLACES, key=(0, 0), pixels=None):
    _, draws = draw(settings, places, key)
    results = []
    for numbers in draws:
        copy = (picture() if pixels is None else pixels).copy()
        augment(settings, copy, numbers)
        results.append(copy)
    return np.array(results)


def test_nothing_is_drawn_when_nothing_may_happen():
    mirrored, draws = draw(Augment(), PLACES, (0, 0))
    assert not any(mirrored)
    assert draws == []
    assert draw(Augment(flip=True), PLACES, (0, 0))[1] == []


def test_about_half_of_the_images_are_mirrored_others_at_every_step():
    one, other = (draw(Augment(flip=True), PLACES, (0, step))[0] for step in (0, 1))
    assert 160 < sum(one) < 240
    assert one != other


@pytest.mark.parametrize(
    "settings",
    [
        Augment(shift=3),
        Augment(crop=0.5),
        Augment(color=0.5),
        Augment(blur=1.0, blur_radius=2.0),
        Augment(grey=0.5),
        Augment(flip=True, shift=3, crop=0.3, color=0.4, blur=0.4, grey=0.2),
    ],
    ids=str,
)
def test_changes_depend_on_seed_step_and_place_alone(settings):
    whole = changed(settings)
    assert np.array_equal(changed(settings, PLACES[37:50]), whole[37:50])
    assert not np.array_equal(changed(settings, key=(0, 1)), whole)
    assert not np.array_equal(changed(settings, key=(1, 0)), whole)
    assert len({one.tobytes() for one in whole}) > 1


def test_a_shift_moves_the_image_and_repeats_its_edges():
    pixels = np.arange(36, dtype=np.uint8).repeat(3).reshape(6, 6, 3)
    seen = set()
    padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="edge")
    expected = {padded[y : y + 6, x : x + 6].tobytes(): (y, x) for y in range(5) for x in range(5)}
    for found in changed(Augment(shift=2), pixels=pixels):
        seen.add(expected[found.tobytes()])
    assert len(seen) == 25


def test_a_crop_of_nearly_all_changes_little_and_a_small_one_much():
    def difference(found):
        return np.abs(found.astype(int) - picture().astype(int)).mean()

    assert difference(changed(Augment(crop=0.999))) < difference(changed(Augment(crop=0.2))) / 2


def test_color_keeps_the_picture_and_changes_its_channels():
    found = changed(Augment(color=0.3)).astype(float)
    means = found.mean(axis=(1, 2, 3))
    assert means.std() > 5
    assert 0.8 < means.mean() / picture().mean() < 1.2


def test_blur_and_grey_happen_to_their_fraction_of_the_images():
    blurred = changed(Augment(blur=0.25, blur_radius=3.0))
    is_changed = (blurred != picture()).any(axis=(1, 2, 3))
    assert 70 < is_changed.sum() < 130
    found = changed(Augment(grey=0.25))
    is_grey = (found == found[..., :1]).all(axis=(1, 2, 3))
    assert 70 < is_grey.sum() < 130
