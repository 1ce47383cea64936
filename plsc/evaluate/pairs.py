"""The hardest pairs: the same that look least alike to the model, the different that look most."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from plsc.transforms import decode_resized

__all__ = ["Pair", "hardest"]

_PICTURE_SIZE = 96


@dataclass(frozen=True)
class Pair:
    """One pair of a benchmark, ready to be shown."""

    number: int
    """Its place in the benchmark, from 0."""
    similarity: float
    """Cosine similarity, -1..1."""
    is_right: bool
    """Whether the model decides it rightly at the threshold."""
    pictures: tuple[str, str]
    """Both images as ``data:`` URIs."""


def hardest(
    images: Sequence[bytes],
    similarities: npt.NDArray[np.floating],
    is_same: npt.NDArray[np.bool_],
    *,
    threshold: float,
    count: int,
) -> tuple[list[Pair], list[Pair]]:
    """Return the same pairs of lowest similarity and the different ones of highest, hardest first.

    Args:
        images: Encoded images, 2n; pair i is images 2i and 2i + 1.
        similarities: Of each pair, [n].
        is_same: Whether pair i is of one class, [n].
        threshold: Similarity from which a pair counts as the same.
        count: How many of each kind (fewer when there are fewer).
    """

    def pair(number: int) -> Pair:
        similarity = float(similarities[number])
        is_right = bool((similarity > threshold) == is_same[number])
        return Pair(
            number,
            similarity,
            is_right,
            (_picture(images[2 * number]), _picture(images[2 * number + 1])),
        )

    order = np.argsort(similarities, kind="stable")
    least = [int(number) for number in order if is_same[number]][:count]
    most = [int(number) for number in order[::-1] if not is_same[number]][:count]
    return [pair(number) for number in least], [pair(number) for number in most]


def _picture(content: bytes) -> str:
    """Return an image as a data URI, encoded anew: only its pixels reach the page."""
    buffer = io.BytesIO()
    Image.fromarray(decode_resized(content, _PICTURE_SIZE)).save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
