"""Small data sets in shards, of images that tell which they are."""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from plsc import storage
from plsc.artifacts.shards import Shard, ShardSet, shard_content
from plsc.conf import compose
from plsc.train.loader import Loader

SIZE = 16
CLASSES = 50


def jpeg(pixels):
    """Return pixels as a JPEG (here and not in ``tests.samples``, which loads torch)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def image(number):
    """Return a JPEG of a random coarse pattern."""
    pattern = np.random.default_rng(number).integers(0, 256, (2, 2, 3), np.uint8)
    return jpeg(np.kron(pattern, np.ones((SIZE // 2, SIZE // 2, 1), np.uint8)))


def written(folder, sizes=(7, 5, 9, 6, 8, 7), *, altered=None, labels=None, num_classes=CLASSES):
    """Write shards below ``folder`` (a path or uri) and return their index.

    ``altered``: content of images, by (shard, row).
    """
    shards, number = [], 0
    for shard, size in enumerate(sizes):
        images = [(altered or {}).get((shard, row), image(number + row)) for row in range(size)]
        keys = np.stack([np.zeros(size), np.arange(number, number + size)], 1).astype(np.uint64)
        of_shard = np.arange(number, number + size) % CLASSES if labels is None else labels
        content = bytes(shard_content(images, of_shard[:size], keys))
        uri = storage.join(str(folder), f"shard-{shard}.arrow")
        storage.write_bytes(uri, content)
        digest = hashlib.sha256(content).hexdigest()
        shards.append(Shard(uri=uri, size_bytes=len(content), sha256=digest, num_samples=size))
        number += size
    return ShardSet.model_construct(
        uri=storage.join(str(folder), "index.json"), shards=shards, image_size=SIZE,
        num_classes=num_classes, num_samples=number,
    )  # fmt: skip


def configured(folder, *overrides):
    """Return a configuration whose cache lies below ``folder``."""
    return compose(
        "tiny", "run_id=loader", f"store_uri={folder}/store", f"image_size={SIZE}",
        "train.global_batch_size=4", "train.ranks=1", "train.augment.flip=true",
        "train.loader.workers=0", f"train.loader.cache_path={folder}/cache", *overrides,
    )  # fmt: skip


def loaded(loader, steps):
    """Return (step, images, labels, replaced) of each step, as copies."""
    return [
        (batch.step, batch.images.copy(), batch.labels.copy(), batch.num_replaced)
        for batch in loader.batches(steps)
    ]


def assert_same(one, other):
    for (step, images, labels, replaced), expected in zip(one, other, strict=True):
        assert step == expected[0]
        assert np.array_equal(images, expected[1])
        assert np.array_equal(labels, expected[2])
        assert replaced == expected[3]


def loader_of(dataset, folder: Path, *overrides, rank=0, world_size=1):
    config = configured(folder, *overrides)
    return Loader(dataset, config, rank=rank, world_size=world_size)
