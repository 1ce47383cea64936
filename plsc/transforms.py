"""Image bytes to pixels to what a backbone reads: one transform for training and clients.

Only NumPy and Pillow are needed; ``simplejpeg`` decodes JPEG faster, where it is installed. (Pillow
is loaded when it is needed: worker processes start often and see few images that are no JPEG.)
"""

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

try:
    import simplejpeg
except ImportError:  # clients need no more than Pillow
    simplejpeg = None

__all__ = [
    "MAX_PIXELS",
    "NotAnImageError",
    "decode",
    "decode_resized",
    "image_dimensions",
    "resize",
    "to_model_input",
]

MAX_PIXELS = 64 * 1024 * 1024
"""Larger images are refused before they are decoded."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")


class NotAnImageError(ValueError):
    """The bytes are no image that plsc reads, or a damaged one."""


def image_dimensions(content: bytes) -> tuple[int, int]:
    """Return (height, width) from the image's header, without decoding its pixels.

    Raises:
        NotAnImageError: If the bytes are no JPEG, PNG, BMP or WebP, or it is larger than
            ``MAX_PIXELS``.
    """
    if simplejpeg is not None and content[:2] == b"\xff\xd8":
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(content)
        except ValueError as error:
            raise NotAnImageError(f"damaged JPEG: {error}") from error
    else:
        with _opened(content) as image:
            width, height = image.size
    if width * height > MAX_PIXELS:
        raise NotAnImageError(f"{width} x {height} pixels are more than the {MAX_PIXELS} allowed")
    return height, width


def decode(content: bytes) -> npt.NDArray[np.uint8]:
    """Return the pixels of an encoded image, uint8 [height, width, 3], RGB.

    Raises:
        NotAnImageError: If the bytes are no image, are cut off, or it is larger than
            ``MAX_PIXELS``.
    """
    image_dimensions(content)
    if simplejpeg is not None and content[:2] == b"\xff\xd8":
        try:
            pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(content, colorspace="RGB")
        except ValueError as error:
            raise NotAnImageError(f"damaged JPEG: {error}") from error
        return pixels
    with _opened(content) as image:
        return np.asarray(image.convert("RGB"))


def decode_resized(content: bytes, image_size: int) -> npt.NDArray[np.uint8]:
    """Return the pixels of an encoded image of any size as uint8 [image_size, image_size, 3].

    Images of another size are resized (bicubic, antialiased; the aspect ratio is not kept).

    Raises:
        NotAnImageError: If the bytes are no image, are cut off, or it is larger than
            ``MAX_PIXELS``.
    """
    return resize(decode(content), image_size)


def resize(pixels: npt.NDArray[np.uint8], image_size: int) -> npt.NDArray[np.uint8]:
    """Return uint8 [height, width, 3] as uint8 [image_size, image_size, 3] (bicubic)."""
    from PIL import Image  # noqa: PLC0415

    if pixels.shape[:2] == (image_size, image_size):
        return pixels
    return np.asarray(
        Image.fromarray(pixels).resize((image_size, image_size), Image.Resampling.BICUBIC)
    )


def to_model_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return ``(x - 127.5) / 127.5`` in the layout of a backbone.

    Args:
        images: uint8 [n, height, width, 3].

    Returns:
        float32 [n, 3, height, width] in [-1, 1]; InsightFace's scaling.
    """
    scaled = (images.astype(np.float32) - 127.5) / 127.5
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _opened(content: bytes) -> "Image.Image":
    from PIL import Image  # noqa: PLC0415

    stream = io.BytesIO(content)
    try:
        image = Image.open(stream, formats=_FORMATS)
        if image.size[0] * image.size[1] <= MAX_PIXELS:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).replace(f" {stream!r}", "")  # an address is another in every run
        raise NotAnImageError(f"not a readable image ({', '.join(_FORMATS)}): {reason}") from error
    return image
