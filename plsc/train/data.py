"""Batches from shards: fetched once, mapped into memory, decoded and augmented batch by batch."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from plsc.artifacts.shards import ShardReader, ShardSet, fetch_shard
from plsc.conf.schema import PipelineConfig
from plsc.errors import ShardError
from plsc.train.partition import partition_classes
from plsc.train.process_group import Ranks
from plsc.train.sampler import Sampler
from plsc.transforms import NotAnImageError, decode, to_model_input

__all__ = ["TrainingData", "batches"]


class TrainingData:
    """All samples of a data set by their position in it, backed by mapped shards."""

    def __init__(self, dataset: ShardSet, cache: Path) -> None:
        """Fetch every shard into ``cache`` (those already there are kept) and map it.

        Raises:
            StorageError: If a shard cannot be fetched.
            ShardError: If a shard is not what the index says.
        """
        self.dataset = dataset
        self._readers = [ShardReader(fetch_shard(shard, cache)) for shard in dataset.shards]
        for shard, reader in zip(dataset.shards, self._readers, strict=True):
            _check_labels(reader, shard.uri, dataset.num_classes)
        self._ends = np.cumsum([len(reader) for reader in self._readers])

    def decode(
        self, indexes: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Return pixels uint8 [n, S, S, 3] and labels int64 [n] of the samples ``indexes``.

        Raises:
            ShardError: If an image cannot be decoded.
        """
        size = self.dataset.image_size
        pixels = np.empty((len(indexes), size, size, 3), np.uint8)
        labels = np.empty(len(indexes), np.int64)
        shards = np.searchsorted(self._ends, indexes, side="right")
        for place, (index, shard) in enumerate(zip(indexes, shards, strict=True)):
            reader = self._readers[shard]
            row = int(index - (self._ends[shard] - len(reader)))
            try:
                pixels[place] = decode(reader.image(row))
            except NotAnImageError as error:
                where = f"row {row} of {self.dataset.shards[shard].uri}"
                raise ShardError(
                    f"{where} cannot be decoded: {error}: run preprocess again"
                ) from error
            labels[place] = reader.label(row)
        return pixels, labels


def _check_labels(reader: ShardReader, uri: str, num_classes: int) -> None:
    labels = reader.labels
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ShardError(
            f"{uri} holds labels {labels.min()}..{labels.max()}, but the index says that there are"
            f" {num_classes} classes, 0..{num_classes - 1}: run preprocess again"
        )


def batches(
    data: TrainingData, sampler: Sampler, config: PipelineConfig, steps: range, ranks: Ranks
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Yield (step, images [B, 3, S, S] in [-1, 1], labels [B]) of this rank for each step.

    B is the same on every rank, and a multiple of ``train.micro_batches``: a smaller share of the
    global batch is filled up with its own images again, labeled -1, which count for nothing. The
    next batch is decoded by a thread while the caller computes.
    """
    share = partition_classes(config.train.global_batch_size, ranks.world_size, ranks.rank)
    parts = config.train.micro_batches
    size = -(-config.train.global_batch_size // (ranks.world_size * parts)) * parts

    def load(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        order = np.arange(size) % max(1, len(share))
        indexes = sampler.batch(step, ranks.rank, ranks.world_size)
        if not share:
            indexes = sampler.batch(step)[:1]
        pixels, labels = data.decode(indexes)
        pixels = _augment(pixels, config, step, share)[order]
        labels = np.where(np.arange(size) < len(share), labels[order], -1)
        return torch.from_numpy(to_model_input(pixels)), torch.from_numpy(labels)

    with ThreadPoolExecutor(1, thread_name_prefix="loader") as thread:
        following = thread.submit(load, steps.start) if steps else None
        for step in steps:
            assert following is not None
            images, labels = following.result()
            following = thread.submit(load, step + 1) if step + 1 < steps.stop else None
            yield step, images, labels


def _augment(
    pixels: npt.NDArray[np.uint8], config: PipelineConfig, step: int, share: range
) -> npt.NDArray[np.uint8]:
    """Mirror and shift at random; what happens depends on seed and place in the global batch."""
    draws = np.random.default_rng([config.seed, step]).random((config.train.global_batch_size, 3))
    draws = draws[share.start : share.start + len(pixels)]
    shift = config.train.shift
    if shift:
        offsets = np.floor(draws[:, :2] * (2 * shift + 1)).astype(int)
        padded = np.pad(pixels, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
        size = pixels.shape[1]
        for place, (y, x) in enumerate(offsets):
            pixels[place] = padded[place, y : y + size, x : x + size]
    if config.train.flip:
        is_mirrored = draws[:, 2] < 0.5
        pixels[is_mirrored] = pixels[is_mirrored, :, ::-1]
    return pixels
