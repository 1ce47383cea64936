import io

import numpy as np
import pytest
from PIL import Image

from plsc.errors import BenchmarkError
from plsc.verification import embed, measure, pixel_embeddings


def encode(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def pictures(count, size=8, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def flatten(pixels):
    return pixels.reshape(len(pixels), -1).astype(np.float32)


def test_embeddings_have_length_one_and_keep_the_order_whatever_the_batch_size():
    found = pictures(7)
    images = [encode(picture) for picture in found]
    expected = flatten(found) / np.linalg.norm(flatten(found), axis=1, keepdims=True)
    for batch_size in (1, 3, 7, 100):
        got = embed(images, flatten, image_size=8, flip=False, batch_size=batch_size)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_embedder_sees_no_more_than_a_batch_of_pixels():
    seen = []

    def watch(pixels):
        seen.append(pixels.shape)
        return flatten(pixels)

    images = [encode(picture) for picture in pictures(5)]
    embed(images, watch, image_size=8, flip=False, batch_size=2)
    assert seen == [(2, 8, 8, 3), (2, 8, 8, 3), (1, 8, 8, 3)]


def test_flip_adds_the_embedding_of_the_mirrored_image_before_normalizing():
    found = pictures(3)
    images = [encode(picture) for picture in found]
    got = embed(images, flatten, image_size=8, flip=True, batch_size=2)
    both = flatten(found) + flatten(found[:, :, ::-1])
    np.testing.assert_allclose(got, both / np.linalg.norm(both, axis=1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("broken", [0.0, np.nan, np.inf])
def test_an_embedding_without_direction_names_the_image(broken):
    def embedder(pixels):
        embeddings = flatten(pixels)
        embeddings[-1] = broken
        return embeddings

    images = [encode(picture) for picture in pictures(4)]
    with pytest.raises(BenchmarkError, match=r"lfw, image 1: expected a finite embedding"):
        embed(images, embedder, image_size=8, flip=False, batch_size=2, name="lfw")


def test_an_image_of_another_size_is_named_with_both_sizes():
    images = [encode(picture) for picture in pictures(3)] + [encode(pictures(1, size=9)[0])]
    with pytest.raises(BenchmarkError, match=r"lfw, image 3: expected 8 x 8 .* found 9 x 9"):
        embed(images, flatten, image_size=8, flip=False, batch_size=2, name="lfw")


def test_bytes_that_are_no_image_are_named():
    images = [encode(pictures(1)[0]), b"not an image"]
    with pytest.raises(BenchmarkError, match="lfw, image 1: "):
        embed(images, flatten, image_size=8, flip=False, batch_size=2, name="lfw")


def test_no_images_are_refused():
    with pytest.raises(BenchmarkError, match="no images"):
        embed([], flatten, image_size=8, flip=False, batch_size=2)


def test_pixel_embeddings_give_the_correlation_of_gray_pixels():
    first, second = pictures(2, size=16)
    images = [encode(first), encode(second)]
    rows = pixel_embeddings(images, image_size=16)
    gray = [
        np.asarray(Image.fromarray(p).convert("L"), np.float64).ravel() for p in (first, second)
    ]
    assert rows[0] @ rows[1] == pytest.approx(np.corrcoef(*gray)[0, 1], abs=1e-5)


def test_pixel_embeddings_ignore_brightness_and_contrast_and_survive_flat_images():
    picture = pictures(1, size=16)[0]
    dim = (picture // 4 * 2 + 60).astype(np.uint8)
    flat = np.full((16, 16, 3), 77, np.uint8)
    rows = pixel_embeddings([encode(p) for p in (picture, dim, flat, flat // 2)], image_size=16)
    assert rows[0] @ rows[1] > 0.99
    assert rows[2] @ rows[3] == pytest.approx(1)
    assert rows[0] @ rows[2] == pytest.approx(0, abs=1e-6)


def test_pixels_tell_noisy_copies_from_other_pictures():
    random = np.random.default_rng(2)
    found = pictures(40, size=16)
    is_same = np.arange(20) % 2 == 0
    for pair in np.flatnonzero(is_same):
        noise = random.normal(0, 30, found[0].shape)
        found[2 * pair + 1] = np.clip(found[2 * pair] + noise, 0, 255).astype(np.uint8)
    rows = pixel_embeddings([encode(picture) for picture in found], image_size=16)
    assert measure(rows, is_same, folds=5, far_targets=[0.1]).accuracy > 0.9
