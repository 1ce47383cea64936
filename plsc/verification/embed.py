"""Encoded images to embeddings, by any model: torch, ONNX or a live endpoint."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from plsc.errors import BenchmarkError
from plsc.transforms import NotAnImageError, decode

__all__ = ["Embedder", "embed"]

_Pixels: TypeAlias = npt.NDArray[np.uint8]
_Embeddings: TypeAlias = npt.NDArray[np.float32]

Embedder: TypeAlias = Callable[[_Pixels], _Embeddings]
"""uint8 [n, height, width, 3] (RGB) -> float32 [n, D], of any length."""


def embed(
    images: Sequence[bytes],
    embedder: Embedder,
    *,
    image_size: int,
    flip: bool,
    batch_size: int,
    name: str = "benchmark",
) -> _Embeddings:
    """Return the embeddings of encoded images, float32 [n, D], of length 1.

    Pixels exist for one batch at a time.

    Args:
        images: Encoded images, each ``image_size`` on both sides.
        embedder: The model.
        image_size: Height and width, in pixels.
        flip: Add the embedding of the mirrored image before normalizing.
        batch_size: Images per call of ``embedder`` (the last may get fewer).
        name: Where the images come from, for messages.

    Raises:
        BenchmarkError: If there are no images, one is unreadable or of another size, or an
            embedding is zero or not finite; it names the image.
    """
    if not images:
        raise BenchmarkError(f"{name} holds no images: nothing to embed")
    return np.concatenate(
        [
            _embed_batch(
                images[start : start + batch_size],
                embedder,
                image_size,
                flip=flip,
                first=start,
                name=name,
            )
            for start in range(0, len(images), batch_size)
        ]
    )


def _embed_batch(
    images: Sequence[bytes],
    embedder: Embedder,
    image_size: int,
    *,
    flip: bool,
    first: int,
    name: str,
) -> _Embeddings:
    pixels = np.stack(
        [
            _decode(content, image_size, f"{name}, image {first + i}")
            for i, content in enumerate(images)
        ]
    )
    embeddings = embedder(pixels).astype(np.float32)
    if flip:
        embeddings = embeddings + embedder(np.ascontiguousarray(pixels[:, :, ::-1]))
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(wrong):
        raise BenchmarkError(
            f"{name}, image {first + wrong[0]}: expected a finite embedding, found"
            f" one of length {lengths[wrong[0], 0]}: its weights are broken (did training diverge?)"
        )
    return np.asarray(embeddings / lengths, dtype=np.float32)


def _decode(content: bytes, image_size: int, where: str) -> _Pixels:
    try:
        pixels = decode(content)
    except NotAnImageError as error:
        raise BenchmarkError(f"{where}: {error}: replace the benchmark's file") from error
    if pixels.shape[:2] != (image_size, image_size):
        height, width = pixels.shape[:2]
        raise BenchmarkError(
            f"{where}: expected {image_size} x {image_size} pixels (image_size), found"
            f" {height} x {width}: use a benchmark made for this size"
        )
    return pixels
