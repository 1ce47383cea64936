"""Decoding in place, mirrored or not, and images that cannot be decoded."""

import io

import numpy as np
import pytest
from PIL import Image

from plsc.train.loader import decoding
from plsc.train.loader.decoding import ImageDecoder
from plsc.transforms import NotAnImageError, decode
from tests.train.loader.sets import SIZE, image, jpeg, loaded, loader_of, written


def noise(size):
    return np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)


def encoded(pixels, kind):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("has_simplejpeg", [True, False])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [16, 112, 33, 7])
def test_pixels_are_those_of_the_common_transform_mirrored_or_not(
    size, kind, has_simplejpeg, monkeypatch
):
    if not has_simplejpeg:
        monkeypatch.setattr(decoding, "simplejpeg", None)
    content = encoded(noise(size), kind)
    pixels = np.empty((size, size, 3), np.uint8)
    for is_mirrored in (True, False):
        ImageDecoder(size).decode(memoryview(content), pixels, mirrored=is_mirrored)
        expected = decode(content)
        assert np.array_equal(pixels, expected[:, ::-1] if is_mirrored else expected)


BAD = {
    "nothing": b"",
    "text": b"no image",
    "cut": image(1)[:-60],
    "header": image(1)[:40],
    "smaller": jpeg(noise(8)),
    "larger": jpeg(noise(32)),
    "wide": jpeg(np.zeros((8, 32, 3), np.uint8)),
    "png": encoded(noise(8), "PNG"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_of_that_size_is_refused(name):
    pixels = np.empty((SIZE, SIZE, 3), np.uint8)
    for is_mirrored in (True, False):
        with pytest.raises(NotAnImageError):
            ImageDecoder(SIZE).decode(memoryview(BAD[name]), pixels, mirrored=is_mirrored)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_damaged_images_are_replaced_by_the_next_of_their_shard_and_counted(
    tmp_path, caplog, workers
):
    bad = dict(zip([(1, 4), *((2, row) for row in range(7))], BAD.values(), strict=True))
    dataset = written(tmp_path / "set", altered=bad)
    loader = loader_of(
        dataset, tmp_path, f"train.loader.workers={workers}", "train.augment.flip=false",
        "train.augment.shift=0",
    )  # fmt: skip
    samples = dataset.num_samples
    epoch = loaded(loader, range(loader.sampler.steps_per_epoch))
    pixels = [one for _, images, _, _ in epoch for one in images][:samples]
    labels = [int(one) for _, _, of_step, _ in epoch for one in of_step][:samples]
    first = [0, 7, 12, 21, 27, 35]  # number of the first image of each shard
    expected = {*range(samples)} - {first[shard] + row for shard, row in bad}
    assert {*labels} == expected
    assert labels.count(first[1] + 0) == 2  # the one behind the last row is the first
    assert labels.count(first[2] + 7) == 8
    for found, label in zip(pixels, labels, strict=True):
        assert np.array_equal(found, decode(image(label)))
    of_repeats = [step for step in epoch[-1:] for _ in range(3)]  # the last batch is filled up
    assert len(bad) <= sum(step[3] for step in epoch) <= len(bad) + len(of_repeats)
    assert caplog.text.count("cannot be used") == 5
    assert "stands in for it; more of them are only counted" in caplog.text
    assert "shard-2.arrow" in caplog.text


def test_a_shard_without_any_image_gives_grey_ones_without_a_label(tmp_path, caplog):
    dataset = written(tmp_path / "set", (3, 4), altered={(0, row): b"x" for row in range(3)})
    loader = loader_of(dataset, tmp_path, "train.global_batch_size=7", "train.augment.shift=0")
    ((_, images, labels, replaced),) = loaded(loader, range(1))
    assert replaced == 3
    assert sorted(labels.tolist()) == [-1, -1, -1, 3, 4, 5, 6]
    assert (images[labels == -1] == 127).all()
    assert "a grey image, no label" in caplog.text
