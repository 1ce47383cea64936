"""The order of samples: a stateless permutation, so that any number of ranks sees the same batches.

An epoch goes through the shards in a random order, cut into *windows* of neighbors, and through
each window's samples in a random order. Only the shards of a window (and of the next one, on their
way) need to lie on this machine. Preprocess has scattered the samples over the shards already, so a
window is a random part of the data set. The state of the order is the step.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plsc.train.loader.keyed import permute
from plsc.train.partition import partition_classes

__all__ = ["Sampler"]

_Ints = npt.NDArray[np.int64]
_SHARDS, _SAMPLES = 0, 1  # what is permuted, as a part of the key


class _Epoch(NamedTuple):
    shards: _Ints
    """int64 [num_shards], in the order of the epoch."""
    ends: _Ints
    """int64 [num_shards]: position behind the last sample of each of them."""
    window_ends: _Ints
    """int64 [num_windows]: position behind the last sample of each window."""


class Sampler:
    """Global batches of samples, the same for every world size.

    An epoch has ``steps_per_epoch = ceil(num_samples / global_batch_size)`` steps and holds every
    sample once; the last batch is filled up with the first samples of the epoch's last window,
    which are at hand (of the whole epoch, if it has one window).

    Windows are numbered from the beginning of training: those of epoch e are
    ``e * num_windows .. (e + 1) * num_windows - 1``. They hold at most ``window_shards`` shards and
    differ by at most one. Memory is O(num_shards) for
    each of up to three epochs.
    """

    def __init__(
        self, shard_sizes: Sequence[int], global_batch_size: int, seed: int, window_shards: int
    ) -> None:
        """Take the number of samples of each shard (at least one shard, none of them empty)."""
        self._sizes: _Ints = np.array(shard_sizes, np.int64)
        self._seed = seed
        self._epochs: dict[int, _Epoch] = {}
        self.global_batch_size = global_batch_size
        self.num_samples = int(self._sizes.sum())
        self.num_windows = -(-len(shard_sizes) // window_shards)
        self.steps_per_epoch = -(-self.num_samples // global_batch_size)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[_Ints, _Ints]:
        """Return ``rank``'s part of the global batch of ``step``.

        Args:
            step: Step since the beginning of training, 0-based; the epoch follows from it.
            rank: The rank, 0 <= rank < world_size.
            world_size: Any number; shares differ by at most one sample.

        Returns:
            The shard and the row in it of each sample: int64 [n] each, n about
            global_batch_size / world_size.
        """
        share = partition_classes(self.global_batch_size, world_size, rank)
        number, step_in_epoch = divmod(step, self.steps_per_epoch)
        start = step_in_epoch * self.global_batch_size
        positions = np.arange(start + share.start, start + share.stop)
        beyond = positions >= self.num_samples
        if beyond.any():
            ends = self._epoch(number).window_ends
            first = int(ends[-2]) if len(ends) > 1 else 0
            positions[beyond] = first + (positions[beyond] - self.num_samples) % (
                self.num_samples - first
            )
        return self._locate(number, positions)

    def windows(self, step: int) -> range:
        """Return the numbers of the windows that the global batch of ``step`` reads."""
        number, step_in_epoch = divmod(step, self.steps_per_epoch)
        start = step_in_epoch * self.global_batch_size
        stop = min(start + self.global_batch_size, self.num_samples)
        ends = self._epoch(number).window_ends
        base = number * self.num_windows
        return range(base + bisect_right(ends, start), base + bisect_right(ends, stop - 1) + 1)

    def shards(self, window: int) -> list[int]:
        """Return the shards of a window, in no order that means anything."""
        number, window_in_epoch = divmod(window, self.num_windows)
        shards: list[int] = self._epoch(number).shards[self._span(window_in_epoch)].tolist()
        return shards

    def shards_by_need(self, window: int) -> list[int]:
        """Return all shards in the order in which they are first needed from ``window`` on."""
        number, window_in_epoch = divmod(window, self.num_windows)
        rest = self._epoch(number).shards[self._span(window_in_epoch).start :]
        following = self._epoch(number + 1).shards
        return [*rest.tolist(), *following[~np.isin(following, rest)].tolist()]

    @property
    def windows_at_once(self) -> int:
        """How many windows have to be at hand so that every step and the one after it can run."""
        shards = len(self._sizes) // self.num_windows
        smallest = int(np.sort(self._sizes)[:shards].sum())
        of_a_step = (self.global_batch_size - 2) // smallest + 2
        return min(self.num_windows, max(2, of_a_step)) if self.num_windows > 1 else 1

    def _locate(self, number: int, positions: _Ints) -> tuple[_Ints, _Ints]:
        epoch = self._epoch(number)
        samples = np.empty_like(positions)
        windows = np.searchsorted(epoch.window_ends, positions, side="right")
        for window in set(windows.tolist()):
            here = windows == window
            start = int(epoch.window_ends[window - 1]) if window else 0
            size = int(epoch.window_ends[window]) - start
            key = (self._seed, _SAMPLES, number, window)
            samples[here] = permute(positions[here] - start, size, key) + start
        places = np.searchsorted(epoch.ends, samples, side="right")
        shards = epoch.shards[places]
        return shards, samples - epoch.ends[places] + self._sizes[shards]

    def _span(self, window_in_epoch: int) -> slice:
        places = partition_classes(len(self._sizes), self.num_windows, window_in_epoch)
        return slice(places.start, places.stop)

    def _epoch(self, number: int) -> _Epoch:
        known = self._epochs.get(number)
        if known is None:
            count = len(self._sizes)
            shards = permute(np.arange(count), count, (self._seed, _SHARDS, number))
            ends = np.cumsum(self._sizes[shards])
            stops = [self._span(window).stop - 1 for window in range(self.num_windows)]
            known = _Epoch(shards, ends, ends[stops])
            # A new dictionary rather than a changed one: threads ask side by side.
            near = {at: epoch for at, epoch in self._epochs.items() if abs(at - number) <= 1}
            self._epochs = {**near, number: known}
        return known
