"""What the built-in sets and those of a font folder have in common: processes, pairs, samples."""

import functools
import logging
import multiprocessing
import os
import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

import numpy as np

from plsc import storage
from plsc.datasets.alphabet import Alphabet
from plsc.datasets.pairs import BENCHMARKS, Pair, choose_pairs, script_of
from plsc.datasets.picture import paint
from plsc.datasets.recipes import SMOOTH, LargeRecipe, Recipe
from plsc.processors import usable_processors
from plsc.progress import track
from plsc.verification import Benchmark

__all__ = ["end_with_parent", "paint_benchmark", "painters", "write_samples"]

log = logging.getLogger("plsc.datasets.glyphs")

_NUM_SAMPLES = 4


@contextmanager
def painters(processes: int | None) -> Iterator[Executor]:
    """Give a pool that drops what is left to paint when the block ends early."""
    # Spawned, not forked: the caller may have threads (torch, boto3) that a fork would break.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        processes or usable_processors(), context, initializer=end_with_parent
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Make this process end when the one that started it is killed, rather than wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.join,), daemon=True).start()


def _end_after(wait: Callable[[], None]) -> None:
    wait()
    os._exit(1)


def paint_benchmark(
    pool: Executor,
    recipe: Recipe | LargeRecipe,
    alphabet: Alphabet,
    held_out: list[str],
    *,
    name: str,
    seed: int,
) -> Benchmark:
    """Choose and paint the pairs of the benchmark ``name`` among the characters held out."""
    pairs = choose_pairs(
        alphabet, held_out, name=name, num_pairs=recipe.num_pairs, folds=recipe.folds, seed=seed
    )
    task = functools.partial(_paint_pair, name=name, image_size=recipe.image_size, seed=seed)
    painted = pool.map(task, pairs, range(len(pairs)), chunksize=64)
    tracked = track(log, name, painted, total=len(pairs), unit="pairs")
    images = [image for pair in tracked for image in pair]
    return Benchmark(name, images, np.array([pair.is_same for pair in pairs]))


def _paint_pair(
    pair: Pair, number: int, *, name: str, image_size: int, seed: int
) -> tuple[bytes, bytes]:
    """Return the two pictures of the pair ``number`` (a pool's task)."""

    def picture(side: int) -> bytes:
        return paint(
            pair.chars[side],
            pair.faces[side],
            image_size=image_size,
            style=BENCHMARKS[name].style,
            key=(seed, name, number, side),
        )

    return picture(0), picture(1)


def write_samples(
    alphabet: Alphabet,
    held_out: list[str],
    out_uri: str,
    *,
    categories: tuple[str, ...],
    image_size: int,
    seed: int,
) -> None:
    """Write a few held-out letters, of as many scripts as there are, in two families each.

    Args:
        alphabet: Their faces; two families or more for each.
        held_out: The characters to choose from.
        out_uri: Folder of the data set.
        categories: Unicode's categories of the letters that will do.
        image_size: Height and width, in pixels.
        seed: The data set's.
    """
    shapes = alphabet.shapes
    letters: dict[str, str] = {}
    for char in sorted(held_out, key=lambda char: (-len(shapes[char]), ord(char))):
        if unicodedata.category(char) in categories:
            letters.setdefault(script_of(char), char)
    for char in list(letters.values())[:_NUM_SAMPLES]:
        first, *others = shapes[char]
        second = next(face for face in reversed(others) if face.family != first.family)
        for letter, face in (("a", first), ("b", second)):
            picture = paint(
                char, face, image_size=image_size, style=SMOOTH, key=(seed, "sample", letter)
            )
            name = f"U+{ord(char):04X}-{letter}.jpg"
            storage.write_bytes(storage.join(out_uri, "samples", name), picture)
