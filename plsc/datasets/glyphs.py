"""The glyph data set: characters are classes, font faces and random distortions make their samples.

``python -m plsc.datasets.glyphs --recipe glyphs --out-uri URI [--seed 0]`` writes what PLSC reads:

======================  ===========================================================================
``part-00000.tsv`` ...  lines ``base64 of a JPEG``, TAB, ``label``
``<benchmark>.bin``     verification sets of characters that no part shows
``samples/``            pictures to try: ``U+0416-a.jpg`` and ``U+0416-b.jpg`` show one held-out
                        character in two faces
``classes.json``        label -> character
``file_list.txt``       the parts' names, one a line; written last: where it is, the set is complete
======================  ===========================================================================

The bytes depend on the recipe, the seed and the installed matplotlib and Pillow, not on the number
of processes.
"""

import argparse
import base64
import functools
import json
import logging
import multiprocessing
import os
import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from plsc import doorway, storage
from plsc.datasets.alphabet import Alphabet, choose_alphabet
from plsc.datasets.chance import rank
from plsc.datasets.faces import Face
from plsc.datasets.pairs import BENCHMARKS, Pair, choose_pairs, script_of
from plsc.datasets.picture import paint
from plsc.datasets.recipes import RECIPES, ROUGH, SMOOTH, Recipe
from plsc.progress import track
from plsc.verification import Benchmark, write_benchmark

__all__ = ["FILE_LIST", "build"]

log = logging.getLogger("plsc.datasets.glyphs")  # not __name__: this module is also run as __main__

FILE_LIST = "file_list.txt"
_ROUGH_EVERY = 3
_NUM_SAMPLES = 4


@dataclass(frozen=True)
class _Plan:
    """What is painted."""

    recipe: Recipe
    seed: int
    alphabet: Alphabet
    held_out: list[str]
    classes: list[str]


def build(recipe: Recipe, out_uri: str, seed: int = 0, *, processes: int | None = None) -> None:
    """Write the data set to the folder ``out_uri``.

    Args:
        recipe: What to make.
        out_uri: Where; files of the same names are replaced.
        seed: Another seed holds out other characters and paints other pictures.
        processes: Processes that paint (default: one per processor). They do not change the bytes.

    Raises:
        StorageError: If the store refuses.
    """
    storage.delete(storage.join(out_uri, FILE_LIST))
    with _painters(processes) as pool:
        plan = _make_plan(pool, recipe, seed)
        names = _write_parts(pool, plan, out_uri)
        for name in BENCHMARKS:
            write_benchmark(out_uri, _paint_benchmark(pool, plan, name))
    _write_samples(plan, out_uri)
    labels = json.dumps(dict(enumerate(plan.classes)), ensure_ascii=False, indent=0)
    storage.write_bytes(storage.join(out_uri, "classes.json"), labels.encode())
    file_list = "".join(f"{name}\n" for name in names)
    storage.write_bytes(storage.join(out_uri, FILE_LIST), file_list.encode())
    log.info(
        "data set: %d classes and %d held-out characters in %s",
        len(plan.classes), len(plan.held_out), out_uri,
    )  # fmt: skip


@contextmanager
def _painters(processes: int | None) -> Iterator[Executor]:
    """Give a pool that drops what is left to paint when the block ends early."""
    # Spawned, not forked: the caller may have threads (torch, boto3) that a fork would break.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes or os.cpu_count(), context)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _make_plan(pool: Executor, recipe: Recipe, seed: int) -> _Plan:
    alphabet = choose_alphabet(pool, max_candidates=recipe.max_candidates, seed=seed)

    def shuffled(chars: Iterable[str]) -> list[str]:
        return sorted(chars, key=lambda char: rank(seed, "split", char))

    held_out = set(shuffled(alphabet.fit_for_pairs())[: recipe.num_held_out])
    classes = shuffled(alphabet.shapes.keys() - held_out)[: recipe.max_classes]
    return _Plan(recipe, seed, alphabet, sorted(held_out), sorted(classes))


def _write_parts(pool: Executor, plan: _Plan, out_uri: str) -> list[str]:
    """Write the training pictures, class after class, cut into parts; return the parts' names."""
    classes = plan.classes
    faces = [tuple(plan.alphabet.shapes[char]) for char in classes]
    task = functools.partial(_paint_class, recipe=plan.recipe, seed=plan.seed)
    painted = pool.map(task, classes, faces, chunksize=8)
    tracked = track(log, "training pictures", painted, total=len(classes), unit="classes")
    names = [f"part-{number:05d}.tsv" for number in range(plan.recipe.num_parts)]
    parts = np.array_split(np.arange(len(classes)), len(names))
    for name, labels in zip(names, parts, strict=True):
        rows = [
            b"%s\t%d\n" % (base64.b64encode(picture), label)
            for label in labels.tolist()
            for picture in next(tracked)
        ]
        storage.write_bytes(storage.join(out_uri, name), b"".join(rows))
    next(tracked, None)  # lets it log its closing line
    return names


def _paint_class(char: str, faces: tuple[Face, ...], *, recipe: Recipe, seed: int) -> list[bytes]:
    """Return the training pictures of one character (a pool's task)."""
    return [
        paint(
            char,
            faces[number % len(faces)],
            image_size=recipe.image_size,
            style=SMOOTH if (number + 1) % _ROUGH_EVERY else ROUGH,
            key=(seed, "train", number),
        )
        for number in range(recipe.images_per_class)
    ]


def _paint_benchmark(pool: Executor, plan: _Plan, name: str) -> Benchmark:
    recipe = plan.recipe
    pairs = choose_pairs(
        plan.alphabet,
        plan.held_out,
        name=name,
        num_pairs=recipe.num_pairs,
        folds=recipe.folds,
        seed=plan.seed,
    )
    task = functools.partial(_paint_pair, name=name, image_size=recipe.image_size, seed=plan.seed)
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


def _write_samples(plan: _Plan, out_uri: str) -> None:
    """Write a few held-out letters, of as many scripts as there are, in two families each."""
    shapes = plan.alphabet.shapes
    letters: dict[str, str] = {}
    for char in sorted(plan.held_out, key=lambda char: (-len(shapes[char]), ord(char))):
        if unicodedata.category(char) in ("Lu", "Ll"):
            letters.setdefault(script_of(char), char)
    for char in list(letters.values())[:_NUM_SAMPLES]:
        first, *others = shapes[char]
        second = next(face for face in reversed(others) if face.family != first.family)
        for letter, face in (("a", first), ("b", second)):
            picture = paint(
                char,
                face,
                image_size=plan.recipe.image_size,
                style=SMOOTH,
                key=(plan.seed, "sample", letter),
            )
            name = f"U+{ord(char):04X}-{letter}.jpg"
            storage.write_bytes(storage.join(out_uri, "samples", name), picture)


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m plsc.datasets.glyphs", description="Make the glyph data set."
    )
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="glyphs", help="what to make")
    parser.add_argument("--out-uri", required=True, help="folder to write to (s3:// or a path)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another data set")
    arguments = parser.parse_args()
    with doorway.main("glyphs"):
        build(RECIPES[arguments.recipe], arguments.out_uri, arguments.seed)


if __name__ == "__main__":
    _main()
