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
of processes. With ``--fonts FOLDER`` the classes are what the fonts below a folder draw, up to
some hundred thousand (``plsc.datasets.large``, ``docs/glyphs.md``).
"""

import argparse
import base64
import functools
import json
import logging
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from plsc import doorway, storage
from plsc.datasets.alphabet import Alphabet, choose_alphabet
from plsc.datasets.chance import rank
from plsc.datasets.faces import Face
from plsc.datasets.large import build_large, count_large
from plsc.datasets.painting import paint_benchmark, painters, write_samples
from plsc.datasets.pairs import BENCHMARKS
from plsc.datasets.picture import paint
from plsc.datasets.recipes import LARGE, RECIPES, ROUGH, ROUGH_EVERY, SMOOTH, Recipe
from plsc.errors import ConfigError
from plsc.progress import track
from plsc.verification import write_benchmark

__all__ = ["FILE_LIST", "build"]

log = logging.getLogger("plsc.datasets.glyphs")  # not __name__: this module is also run as __main__

FILE_LIST = "file_list.txt"


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
    with painters(processes) as pool:
        plan = _make_plan(pool, recipe, seed)
        names = _write_parts(pool, plan, out_uri)
        for name in BENCHMARKS:
            benchmark = paint_benchmark(
                pool, recipe, plan.alphabet, plan.held_out, name=name, seed=seed
            )
            write_benchmark(out_uri, benchmark)
    write_samples(
        plan.alphabet,
        plan.held_out,
        out_uri,
        categories=("Lu", "Ll"),
        image_size=recipe.image_size,
        seed=seed,
    )
    labels = json.dumps(dict(enumerate(plan.classes)), ensure_ascii=False, indent=0)
    storage.write_bytes(storage.join(out_uri, "classes.json"), labels.encode())
    file_list = "".join(f"{name}\n" for name in names)
    storage.write_bytes(storage.join(out_uri, FILE_LIST), file_list.encode())
    log.info(
        "data set: %d classes and %d held-out characters in %s",
        len(plan.classes), len(plan.held_out), out_uri,
    )  # fmt: skip


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
            style=SMOOTH if (number + 1) % ROUGH_EVERY else ROUGH,
            key=(seed, "train", number),
        )
        for number in range(recipe.images_per_class)
    ]


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m plsc.datasets.glyphs", description="Make a glyph data set."
    )
    recipes = [*sorted(RECIPES), "large"]
    parser.add_argument("--recipe", choices=recipes, help="what to make (default: glyphs)")
    parser.add_argument("--out-uri", default="", help="folder to write to (s3:// or a path)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another data set")
    parser.add_argument("--processes", type=int, help="processes that paint (default: all)")
    large = parser.add_argument_group("recipe large, which is the default with --fonts")
    large.add_argument("--fonts", type=Path, help="folder with font files, searched recursively")
    large.add_argument("--count-only", action="store_true", help="say what would be made; stop")
    for option, (name, what) in _OPTIONS.items():
        default = getattr(LARGE, name)
        large.add_argument(option, dest=name, type=int, help=f"{what} (default: {default})")
    arguments = parser.parse_args()
    with doorway.main("glyphs"):
        _run(arguments)


_OPTIONS = {
    "--min-faces": ("min_faces", "leave out characters that fewer faces draw"),
    "--max-classes": ("max_classes", "characters to train on, if there are more"),
    "--held-out": ("num_held_out", "characters that only the benchmarks show"),
    "--images-per-face": ("images_per_face", "training pictures per character and face"),
    "--images-per-class": ("images_per_class", "training pictures per character; 0: per face"),
    "--image-size": ("image_size", "height and width in pixels"),
    "--parts": ("num_parts", "part files; 0: as many as keep each below about 64 MiB"),
    "--pairs": ("num_pairs", "pairs per benchmark"),
}
"""Option -> field of ``LargeRecipe``, and what it means."""


def _run(arguments: argparse.Namespace) -> None:
    given = {name: getattr(arguments, name) for name, _ in _OPTIONS.values()}
    given = {name: value for name, value in given.items() if value is not None}
    if not arguments.out_uri and not arguments.count_only:
        raise ConfigError("expected --out-uri, the folder to write to, found none")
    if arguments.fonts is None:
        _run_built_in(arguments, given)
        return
    if arguments.recipe not in (None, "large"):
        raise ConfigError(
            f"--recipe {arguments.recipe} draws with matplotlib's fonts: leave out --fonts, or take"
            " --recipe large"
        )
    recipe = replace(LARGE, **given)
    seed, processes = arguments.seed, arguments.processes
    if arguments.count_only:
        count_large(arguments.fonts, recipe, seed, processes=processes)
    else:
        build_large(arguments.fonts, recipe, arguments.out_uri, seed, processes=processes)


def _run_built_in(arguments: argparse.Namespace, given: dict[str, int]) -> None:
    if arguments.recipe == "large":
        raise ConfigError("--recipe large expects --fonts, a folder with font files: see docs")
    if given or arguments.count_only:
        options = [option for option, (name, _) in _OPTIONS.items() if name in given]
        options += ["--count-only"] if arguments.count_only else []
        raise ConfigError(f"{' '.join(options)}: only with --fonts; the built-in recipes are fixed")
    recipe = RECIPES[arguments.recipe or "glyphs"]
    build(recipe, arguments.out_uri, arguments.seed, processes=arguments.processes)


if __name__ == "__main__":
    _main()
