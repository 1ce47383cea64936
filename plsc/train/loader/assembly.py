"""One rank's part of a step's batch, a pure function of the plan, the step and the shards."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plsc.artifacts.index import Value
from plsc.artifacts.shards import ShardReader
from plsc.errors import ShardError
from plsc.train.loader.augment import Augment, augment, draw
from plsc.train.loader.decoding import ImageDecoder
from plsc.train.loader.sampler import Sampler
from plsc.train.partition import partition_classes
from plsc.transforms import NotAnImageError

__all__ = ["Assembler", "Assembly", "Plan", "Replacement"]

_NAMED = 5  # replaced images that a batch tells more than the number of
_GREY = 127


class Plan(Value):
    """All that a process needs to know to make batches, ready to be sent to one."""

    cache_path: str
    shard_digests: list[str]
    shard_sizes: list[int]
    """Samples of each shard."""
    image_size: int
    global_batch_size: int
    micro_batches: int
    rank: int
    world_size: int
    seed: int
    window_shards: int
    slots: int
    """Batches that the ring holds."""
    augment: Augment

    @property
    def batch_size(self) -> int:
        """Samples of each rank, B: the same on all of them, a multiple of ``micro_batches``."""
        parts = self.micro_batches
        return -(-self.global_batch_size // (self.world_size * parts)) * parts

    def sampler(self) -> Sampler:
        """Return the order of the samples."""
        return Sampler(self.shard_sizes, self.global_batch_size, self.seed, self.window_shards)


class Replacement(Value):
    """An image that could not be used, and what stands in its place."""

    shard: int
    row: int
    reason: str
    by_row: int
    """-1: no image of the shard can be used; a grey one without a label stands there."""


class Assembly(Value):
    """What came of one batch."""

    step: int
    lost_shard: int = -1
    """A shard whose file is gone: nothing was made. -1: none."""
    num_replaced: int = 0
    replaced: tuple[Replacement, ...] = ()
    """The first few of them."""


class Assembler:
    """Decodes batches into given memory; keeps their shards mapped until told to forget them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sampler = plan.sampler()
        self._decoder = ImageDecoder(plan.image_size)
        self._readers: dict[int, _Readable] = {}

    def assemble(
        self, step: int, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
    ) -> Assembly:
        """Write this rank's part of the batch of ``step`` and tell what had to be replaced.

        A smaller share of the global batch is filled up with its own images again, labeled -1,
        which count for nothing; a rank without a share gets the batch's first image so.

        Args:
            step: Step since the beginning of training.
            images: uint8 [B, S, S, 3], to be overwritten.
            labels: int64 [B], to be overwritten.

        Raises:
            ShardError: If the file of a shard is damaged.
        """
        plan = self._plan
        share = partition_classes(plan.global_batch_size, plan.world_size, plan.rank)
        if share:
            shards, rows = self._sampler.batch(step, plan.rank, plan.world_size)
        else:
            shards, rows = (part[:1] for part in self._sampler.batch(step))
        places = np.arange(share.start, share.stop) if share else np.zeros(1, np.int64)
        for shard in set(shards.tolist()):
            if shard not in self._readers and not self._open(shard):
                return Assembly(step=step, lost_shard=shard)
        mirrored, draws = draw(plan.augment, places, (plan.seed, step))
        samples = zip(shards.tolist(), rows.tolist(), mirrored, strict=True)
        replaced = self._decode(samples, draws, images, labels)
        count = len(places)
        for place in range(count, len(images)):
            images[place] = images[place % count]
        labels[len(share) :] = -1
        replaced = replaced if share else []
        return Assembly(step=step, num_replaced=len(replaced), replaced=tuple(replaced[:_NAMED]))

    def forget_before(self, window: int) -> None:
        """Unmap what no step from ``window`` on reads soon: a removed file frees its room then."""
        windows = range(window, window + self._sampler.windows_at_once)
        kept = {shard for near in windows for shard in self._sampler.shards(near)}
        self._readers = {shard: one for shard, one in self._readers.items() if shard in kept}

    def _decode(
        self,
        samples: Iterator[tuple[int, int, bool]],
        draws: list[list[float]],
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
    ) -> list[Replacement]:
        """Decode samples, (shard, row, whether mirrored), and tell which were replaced."""
        replaced = []
        found = []
        for place, (shard, row, is_mirrored) in enumerate(samples):
            readable, pixels = self._readers[shard], images[place]
            reader = readable.reader
            try:  # at 50 us an image every call counts: what is right takes the short way
                self._decoder.decode(reader.image(row), pixels, mirrored=is_mirrored)
                found.append(reader.label(row))
            except NotAnImageError as error:
                by_row = readable.stand_in(row, pixels, self._decoder, mirrored=is_mirrored)
                found.append(reader.label(by_row) if by_row >= 0 else -1)
                replaced.append(Replacement(shard=shard, row=row, reason=str(error), by_row=by_row))
            if draws:
                augment(self._plan.augment, pixels, draws[place])
        labels[: len(found)] = found
        return replaced

    def _open(self, shard: int) -> bool:
        path = Path(self._plan.cache_path) / f"{self._plan.shard_digests[shard]}.arrow"
        try:
            self._readers[shard] = _Readable(ShardReader(path))
        except ShardError:
            if path.exists():
                raise
            return False
        return True


class _Readable:
    """A shard, and which of its rows cannot be used."""

    def __init__(self, reader: ShardReader) -> None:
        self.reader = reader
        self._bad: set[int] = set()

    def stand_in(
        self, row: int, pixels: npt.NDArray[np.uint8], decoder: ImageDecoder, *, mirrored: bool
    ) -> int:
        """Decode the next row of the shard, cyclically, that can be decoded, and return it.

        -1: no row can be; the image is grey.
        """
        self._bad.add(row)
        size = len(self.reader)
        for candidate in itertools.chain(range(row + 1, size), range(row)):
            if candidate not in self._bad:
                try:
                    decoder.decode(self.reader.image(candidate), pixels, mirrored=mirrored)
                except NotAnImageError:
                    self._bad.add(candidate)
                else:
                    return candidate
        pixels[:] = _GREY
        return -1
