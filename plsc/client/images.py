"""What a caller may hand in as an image, and how it becomes the pixels that a model reads."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plsc.transforms import NotAnImageError, decode_resized, resize

__all__ = ["Image", "to_pixels"]

Image = bytes | str | PathLike[str] | npt.NDArray[np.uint8]
"""An encoded image, the path of one, or its pixels: uint8 [height, width, 3], RGB."""


def to_pixels(
    images: Sequence[Image] | npt.NDArray[np.uint8], image_size: int
) -> npt.NDArray[np.uint8]:
    """Return all images as uint8 [n, image_size, image_size, 3]; other sizes are resized.

    Raises:
        NotAnImageError: If one is no image; with its place and its path.
        OSError: If a path cannot be read.
        TypeError: If one image is given where a list of them is expected.
    """
    if isinstance(images, bytes | str | PathLike):
        raise TypeError("expected a list of images, found one: put it into a list, [image]")
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise TypeError(
            f"expected a list of images or an array [n, height, width, 3], found {images.shape}"
        )
    pixels = [_pixels(image, number, image_size) for number, image in enumerate(images)]
    return np.stack(pixels) if pixels else np.empty((0, image_size, image_size, 3), np.uint8)


def _pixels(image: Image, number: int, image_size: int) -> npt.NDArray[np.uint8]:
    try:
        if isinstance(image, np.ndarray):
            return _from_array(image, image_size)
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
        return decode_resized(content, image_size)
    except NotAnImageError as error:
        name = str(image) if isinstance(image, str | PathLike) else f"image {number}"
        raise NotAnImageError(f"{name}: {error}") from error


def _from_array(image: npt.NDArray[np.uint8], image_size: int) -> npt.NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise NotAnImageError(
            f"expected pixels as uint8 [height, width, 3], found {image.dtype} {list(image.shape)}"
        )
    return resize(image, image_size)
