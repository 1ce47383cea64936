"""Pixels: the same from every decoder, and nothing unsafe is decoded."""

import io

import numpy as np
import pytest
from PIL import Image

from plsc import transforms


def encoded(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


@pytest.fixture
def pixels():
    ramp = np.linspace(0, 255, 40 * 30 * 3).reshape(30, 40, 3)
    return ramp.astype(np.uint8)


def test_png_is_decoded_exactly(pixels):
    assert np.array_equal(transforms.decode(encoded(pixels, format="PNG")), pixels)


def test_jpeg_is_the_same_with_and_without_simplejpeg(pixels, monkeypatch):
    content = encoded(pixels, format="JPEG", quality=90)
    fast = transforms.decode(content)
    assert transforms.image_dimensions(content) == (30, 40)
    monkeypatch.setattr(transforms, "simplejpeg", None)
    slow = transforms.decode(content)
    assert transforms.image_dimensions(content) == (30, 40)
    assert np.abs(fast.astype(int) - slow).max() <= 2


def test_gray_and_transparent_images_become_rgb(pixels):
    gray = encoded(pixels[..., 0], format="PNG")
    clear = encoded(np.dstack([pixels, pixels[..., 0]]), format="PNG")
    assert transforms.decode(gray).shape == transforms.decode(clear).shape == (30, 40, 3)


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\xff\xd8\xff\xe0broken", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_image_is_refused(content):
    with pytest.raises(transforms.NotAnImageError):
        transforms.decode(content)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"BM" + bytes(60)])
def test_the_reason_is_the_same_in_every_run(content):
    with pytest.raises(transforms.NotAnImageError) as caught:
        transforms.decode(content)
    assert str(caught.value).startswith("not a readable image (JPEG, PNG, BMP, WEBP): ")
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_image_that_is_cut_off_is_refused(pixels, format_):
    content = encoded(pixels, format=format_)
    with pytest.raises(transforms.NotAnImageError):
        transforms.decode(content[: len(content) // 2])


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_huge_image_is_refused_before_it_is_decoded(pixels, format_, monkeypatch):
    monkeypatch.setattr(transforms, "MAX_PIXELS", 1000)
    with pytest.raises(transforms.NotAnImageError, match="more than the 1000 allowed"):
        transforms.decode(encoded(pixels, format=format_))


def test_gif_is_not_among_the_formats(pixels):
    with pytest.raises(transforms.NotAnImageError, match="JPEG, PNG"):
        transforms.decode(encoded(pixels, format="GIF"))


def test_other_sizes_are_resized(pixels):
    assert transforms.decode_resized(encoded(pixels, format="PNG"), 16).shape == (16, 16, 3)
    square = pixels[:, :30]
    assert np.array_equal(transforms.decode_resized(encoded(square, format="PNG"), 30), square)


def test_model_input_is_scaled_to_minus_one_to_one():
    images = np.array([0, 127, 128, 255], np.uint8).reshape(1, 2, 2, 1).repeat(3, axis=3)
    scaled = transforms.to_model_input(images)
    assert scaled.shape == (1, 3, 2, 2)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[0, 0].ravel(), [-1, -1 / 255, 1 / 255, 1], atol=1e-6)
