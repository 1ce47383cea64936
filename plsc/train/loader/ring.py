"""Memory that a rank and its decoding workers share: a ring of slots, one batch each."""

import mmap
import os

import numpy as np
import numpy.typing as npt

from plsc.errors import TrainError

__all__ = ["Ring"]


class Ring:
    """Slots of images uint8 [B, S, S, 3] and labels int64 [B] in one anonymous file.

    The file has no name and no place on a disk: it is passed on by its descriptor, and is gone with
    the last process that has it, however that ends.
    """

    def __init__(self, descriptor: int, *, slots: int, batch_size: int, image_size: int) -> None:
        """Map a ring that another process has made; the descriptor may be closed afterwards."""
        image_bytes = batch_size * image_size * image_size * 3
        labels_at, stride = _layout(batch_size, image_size)
        memory = mmap.mmap(descriptor, slots * stride)
        shape = (batch_size, image_size, image_size, 3)
        self.images: list[npt.NDArray[np.uint8]] = [
            np.frombuffer(memory, np.uint8, image_bytes, slot * stride).reshape(shape)
            for slot in range(slots)
        ]
        self.labels: list[npt.NDArray[np.int64]] = [
            np.frombuffer(memory, np.int64, batch_size, slot * stride + labels_at)
            for slot in range(slots)
        ]

    @classmethod
    def make(cls, *, slots: int, batch_size: int, image_size: int) -> tuple["Ring", int]:
        """Return a new ring and the descriptor to hand on, which the caller closes.

        Raises:
            TrainError: If this process may not have so much.
        """
        descriptor = os.memfd_create("plsc-loader")
        size_bytes = slots * _layout(batch_size, image_size)[1]
        try:
            os.ftruncate(descriptor, size_bytes)
        except OSError as error:
            os.close(descriptor)
            raise TrainError(
                f"{size_bytes} bytes for {slots} batches cannot be had: {error.strerror}: raise the"
                " limits of this process (ulimit -f), or lower train.global_batch_size"
            ) from error
        ring = cls(descriptor, slots=slots, batch_size=batch_size, image_size=image_size)
        return ring, descriptor


def _layout(batch_size: int, image_size: int) -> tuple[int, int]:
    """Return where in a slot the labels begin, and the bytes from one slot to the next."""
    labels_at = -(-batch_size * image_size * image_size * 3 // 8) * 8
    return labels_at, -(-(labels_at + batch_size * 8) // mmap.PAGESIZE) * mmap.PAGESIZE
