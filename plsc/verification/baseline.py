"""What a model must beat: the correlation of raw pixels, as embeddings for the same protocol."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from plsc.verification.embed import embed

__all__ = ["pixel_embeddings"]

_SIDE = 16
_BATCH_SIZE = 256


def pixel_embeddings(
    images: Sequence[bytes], *, image_size: int, name: str = "benchmark"
) -> npt.NDArray[np.float32]:
    """Return gray pixels at 16 x 16, mean 0, length 1, float32 [n, 256].

    Their cosine is the correlation of the images.

    Args:
        images: Encoded images, each ``image_size`` on both sides.
        image_size: Height and width, in pixels.
        name: Where the images come from, for messages.

    Raises:
        BenchmarkError: If an image is unreadable or of another size.
    """
    return embed(
        images, _correlate, image_size=image_size, flip=False, batch_size=_BATCH_SIZE, name=name
    )


def _correlate(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return mean-free pixels; a flat image, which has none, correlates only with its like."""
    small = np.array([_shrink(image) for image in pixels])
    centered: npt.NDArray[np.float32] = small - small.mean(axis=1, keepdims=True)
    centered[~centered.any(axis=1)] = 1
    return centered


def _shrink(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    gray = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(gray, dtype=np.float32).ravel()
