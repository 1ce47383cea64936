"""The order of samples: a stateless permutation, so that any number of ranks sees the same batches.

The sample at position i of epoch e is ``permute(i)`` under a Feistel network keyed by (seed, e),
with cycle walking for sizes that are no power of four (Black and Rogaway, "Ciphers with arbitrary
finite domains", 2002). Nothing is stored: the state of the order is the step.
"""

import numpy as np
import numpy.typing as npt

from plsc.train.partition import partition_classes

__all__ = ["Sampler"]

_ROUNDS = 6
_U64 = np.uint64


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return splitmix64's output function of each value (Steele, Lea and Flood, 2014)."""
    mixed = values
    mixed = (mixed ^ (mixed >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> _U64(27))) * _U64(0x94D049BB133111EB)
    return mixed ^ (mixed >> _U64(31))


class Sampler:
    """Global batches of sample indexes, the same for every world size.

    An epoch has ``steps_per_epoch = ceil(num_samples / global_batch_size)`` steps and holds every
    sample once; the last batch is filled up with the first samples of the same epoch's order.
    """

    def __init__(self, num_samples: int, global_batch_size: int, seed: int) -> None:
        self.num_samples = num_samples
        self.global_batch_size = global_batch_size
        self.steps_per_epoch = -(-num_samples // global_batch_size)
        self._seed = seed
        half_bits = max(1, -(-max(1, (num_samples - 1).bit_length()) // 2))
        self._half_bits = _U64(half_bits)
        self._half_mask = _U64((1 << half_bits) - 1)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> npt.NDArray[np.int64]:
        """Return the indexes of ``rank``'s part of the global batch of ``step``.

        Args:
            step: Step since the beginning of training, 0-based; the epoch follows from it.
            rank: The rank, 0 <= rank < world_size.
            world_size: Any number; shares differ by at most one sample.

        Returns:
            int64, about global_batch_size / world_size of them, each in 0 .. num_samples - 1.
        """
        share = partition_classes(self.global_batch_size, world_size, rank)
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        start = step_in_epoch * self.global_batch_size
        positions = np.arange(start + share.start, start + share.stop, dtype=np.uint64)
        positions %= _U64(self.num_samples)
        return self.permute(positions, epoch)

    def permute(self, positions: npt.NDArray[np.uint64], epoch: int) -> npt.NDArray[np.int64]:
        """Return which samples stand at ``positions`` (each < num_samples) of ``epoch``."""
        values = self._encipher(positions, epoch)
        outside = values >= _U64(self.num_samples)
        while outside.any():
            values[outside] = self._encipher(values[outside], epoch)
            outside = values >= _U64(self.num_samples)
        return values.astype(np.int64)

    def _encipher(self, values: npt.NDArray[np.uint64], epoch: int) -> npt.NDArray[np.uint64]:
        left, right = values >> self._half_bits, values & self._half_mask
        with np.errstate(over="ignore"):
            for number in range(_ROUNDS):
                key = _mix(np.array([self._seed, epoch, number], dtype=np.uint64))
                mixed = _mix(right + key[0]) ^ key[1]
                left, right = right, left ^ (_mix(mixed + key[2]) & self._half_mask)
        return (left << self._half_bits) | right
