"""Input for the benchmarks of preprocess: real JPEGs, all different, as parts of base64 records.

A few hundred pictures are encoded; every row is one of them with a comment segment of its own (the
row's number), so that a row costs a copy and no encoding, and yet is a whole JPEG that no other row
equals. Memory does not grow with the number of rows.
"""

import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pybase64
import simplejpeg
from PIL import Image

__all__ = ["IMAGE_SIZE", "Parts", "check_room", "read_through", "write_parts"]

IMAGE_SIZE = 112
"""Pixels of an image's height and width, as face data sets have them."""

_NUM_PICTURES = 256
_BLOCK_ROWS = 4096
_COMMENT_BYTES = 16
_SPARE = 1.05
"""Room asked for, over what is reckoned: folders, indexes, what others write meanwhile."""


@dataclass(frozen=True)
class Parts:
    """How much input to make."""

    rows: int
    image_bytes: int = 5000
    """Mean size of an encoded image; sizes scatter by an eighth of it."""
    num_parts: int = 8
    num_classes: int = 0
    """0: one for every 50 rows."""

    @property
    def classes(self) -> int:
        """Number of classes, >= 1."""
        return self.num_classes or max(1, self.rows // 50)

    @property
    def size_bytes(self) -> int:
        """About how much the parts take on disk."""
        return self.rows * (self.image_bytes * 4 // 3 + 8)


def check_room(folder: Path, needed_bytes: int) -> None:
    """Check that the disk of ``folder`` has room for what is to come.

    Raises:
        ValueError: If not; it says how much is missing, and what to do.
    """
    free = shutil.disk_usage(folder).free
    if needed_bytes * _SPARE > free:
        raise ValueError(
            f"{needed_bytes * _SPARE / 1e9:.1f} GB are needed below {folder}, {free / 1e9:.1f} GB"
            " are free: give another --folder, or fewer rows"
        )


def write_parts(folder: Path, parts: Parts, *, seed: int = 0) -> list[Path]:
    """Write the parts ``image TAB label`` and ``file_list.txt`` below ``folder``.

    The same arguments give the same bytes.

    Args:
        folder: Where they go; it is made.
        parts: How much of them.
        seed: Of pictures and labels.

    Returns:
        The parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _pictures(parts.image_bytes, np.random.default_rng([seed, 0]))
    rng = np.random.default_rng([seed, 1])
    cuts = [parts.rows * part // parts.num_parts for part in range(parts.num_parts + 1)]
    paths = []
    for part, (first, last) in enumerate(pairwise(cuts)):
        path = folder / f"part-{part:03d}.tsv"
        with path.open("wb", buffering=1 << 20) as file:
            for begin in range(first, last, _BLOCK_ROWS):
                numbers = range(begin, min(last, begin + _BLOCK_ROWS))
                labels = rng.integers(parts.classes, size=len(numbers)).tolist()
                for number, label in zip(numbers, labels, strict=True):
                    head, tail = pictures[number % len(pictures)]
                    image = head + b"%0*d" % (_COMMENT_BYTES, number) + tail
                    file.write(b"%s\t%d\n" % (pybase64.b64encode(image), label))
        paths.append(path)
    (folder / "file_list.txt").write_text("".join(f"{path.name}\n" for path in paths))
    return paths


def read_through(paths: list[Path]) -> None:
    """Read files once, so that all that follow find them in the page cache, if they fit."""
    buffer = bytearray(1 << 20)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _pictures(image_bytes: int, rng: np.random.Generator) -> list[tuple[bytes, bytes]]:
    """Return JPEGs, each as what stands before and behind the text of its comment."""
    pictures = []
    for size in rng.normal(image_bytes, image_bytes / 8, _NUM_PICTURES):
        content = _encoded(_pixels(rng), int(size) - _COMMENT_BYTES - 4)
        comment = b"\xff\xfe" + (_COMMENT_BYTES + 2).to_bytes(2, "big")
        pictures.append((content[:2] + comment, content[2:]))
    return pictures


def _pixels(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return a random picture with shapes and some grain, uint8 [IMAGE_SIZE, IMAGE_SIZE, 3]."""
    coarse = Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
    grain = rng.normal(0, 12, (IMAGE_SIZE, IMAGE_SIZE, 1))
    pixels: npt.NDArray[np.uint8] = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    return pixels


def _encoded(pixels: npt.NDArray[np.uint8], size_bytes: int) -> bytes:
    """Return ``pixels`` as a JPEG of the quality whose size comes closest from below."""
    low, high = 1, 100
    while high - low > 1:
        quality = (low + high) // 2
        fits = len(simplejpeg.encode_jpeg(pixels, quality=quality)) <= size_bytes
        low, high = (quality, high) if fits else (low, quality)
    content: bytes = simplejpeg.encode_jpeg(pixels, quality=low)
    return content
