"""Encoded images to the pixels of a batch, in place, mirrored at almost no cost."""

import numpy as np
import numpy.typing as npt

from plsc.transforms import NotAnImageError, decode

try:
    import simplejpeg
except ImportError:  # Pillow does it too, at a third of the rate
    simplejpeg = None

__all__ = ["ImageDecoder"]


def _is_jpeg(content: memoryview) -> bool:
    return len(content) > 2 and content[0] == 0xFF and content[1] == 0xD8


class ImageDecoder:
    """Decodes images of one size, uint8 [S, S, 3], RGB."""

    def __init__(self, image_size: int) -> None:
        self._shape = (image_size, image_size, 3)
        self._scratch = np.empty((image_size, image_size * 3), np.uint8)
        # A row is mirrored eight bytes at once: its 64-bit words in reverse, and, by being read in
        # the other byte order, the bytes of each. That reverses the channels too, so they are
        # decoded as BGR. 2 us for 112 x 112 pixels; a copy of ``[:, ::-1]`` takes 40.
        self._mirrored_words: npt.NDArray[np.uint64] | None = None
        if image_size * 3 % 8 == 0:
            other_order = np.dtype(np.uint64).newbyteorder()
            self._mirrored_words = self._scratch.view(other_order)[:, ::-1]

    def decode(self, content: memoryview, pixels: npt.NDArray[np.uint8], *, mirrored: bool) -> None:
        """Write the pixels of an encoded image into ``pixels``, uint8 [S, S, 3], contiguous.

        Raises:
            NotAnImageError: If it is no image, a damaged one, or one of another size; ``pixels``
                may have changed then.
        """
        if simplejpeg is None or not _is_jpeg(content):
            found = self._checked(decode(bytes(content)))
            pixels[:] = found[:, ::-1] if mirrored else found
            return
        swaps = mirrored and self._mirrored_words is not None
        try:
            found = simplejpeg.decode_jpeg(
                content, "BGR" if swaps else "RGB", buffer=self._scratch if swaps else pixels
            )
        except ValueError as error:
            raise NotAnImageError(f"damaged JPEG: {error}") from error
        if found.shape != self._shape:
            self._checked(found)
        if swaps:
            assert self._mirrored_words is not None
            np.copyto(pixels.reshape(len(pixels), -1).view(np.uint64), self._mirrored_words)
        elif mirrored:
            pixels[:] = pixels[:, ::-1].copy()

    def _checked(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if pixels.shape != self._shape:
            height, width, _ = pixels.shape
            size = self._shape[0]
            raise NotAnImageError(f"{width} x {height} pixels where {size} x {size} belong")
        return pixels
