"""The glyph data set of a folder of fonts: any number of classes, in parts of bounded size.

Each part is painted and written by one process, which holds no more than that part. Beside a part
lies a note, ``unfinished/<part>.json``, until the set is complete: of which plan the part is, and
its SHA-256. A run that is started again after it was interrupted surveys the fonts anew and keeps
the parts of the same plan whose bytes still have that digest.
"""

import base64
import functools
import hashlib
import io
import json
import logging
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

from plsc import storage
from plsc.datasets.faces import ink
from plsc.datasets.painting import paint_benchmark, painters, write_samples
from plsc.datasets.pairs import BENCHMARKS
from plsc.datasets.picture import paint_quickly
from plsc.datasets.plan import Plan, PlannedClass, cut_into_parts, make_plan
from plsc.datasets.recipes import ROUGH, ROUGH_EVERY, SMOOTH, LargeRecipe
from plsc.errors import StorageError
from plsc.progress import Progress
from plsc.verification import write_benchmark

__all__ = ["build_large", "count_large"]

log = logging.getLogger("plsc.datasets.glyphs")

_FEWEST_SLANTED = 20
"""With fewer held-out characters in both postures there is no benchmark of slant."""
_LETTERS = ("Lo", "Lu", "Ll")
_NOTES = "unfinished"


def count_large(fonts: Path, recipe: LargeRecipe, seed: int, *, processes: int | None) -> None:
    """Log what ``build_large`` would make, and make nothing."""
    with tempfile.TemporaryDirectory(prefix="plsc-glyphs-") as work, painters(processes) as pool:
        make_plan(pool, fonts, recipe, seed, Path(work), processes=processes)


def build_large(
    fonts: Path, recipe: LargeRecipe, out_uri: str, seed: int = 0, *, processes: int | None = None
) -> None:
    """Write the data set of the fonts below the folder ``fonts`` to the folder ``out_uri``.

    Args:
        fonts: Folder of font files; fonts that cannot be used are skipped with a warning.
        recipe: What to make of them.
        out_uri: Where; files of the same names are replaced.
        seed: Another seed holds out other characters and paints other pictures.
        processes: Processes that paint (default: one per processor). They do not change the bytes.

    Raises:
        ConfigError: If the fonts yield too few characters.
        StorageError: If the store refuses.
    """
    storage.delete(storage.join(out_uri, "file_list.txt"))
    with tempfile.TemporaryDirectory(prefix="plsc-glyphs-") as work, painters(processes) as pool:
        plan, document = make_plan(pool, fonts, recipe, seed, Path(work), processes=processes)
        names = _write_parts(pool, plan, out_uri)
        _write_benchmarks(pool, plan, out_uri)
    _write_json(out_uri, "classes.json", {each.label: each.char for each in plan.classes})
    _write_json(out_uri, "fonts.json", document)
    storage.delete_prefix(storage.join(out_uri, _NOTES) + "/")
    file_list = "".join(f"{name}\n" for name in names)
    storage.write_bytes(storage.join(out_uri, "file_list.txt"), file_list.encode())
    log.info("data set: %d classes in %d parts in %s", len(plan.classes), len(names), out_uri)


def _write_json(out_uri: str, name: str, document: object) -> None:
    content = json.dumps(document, ensure_ascii=False, indent=0).encode()
    storage.write_bytes(storage.join(out_uri, name), content)


def _write_parts(pool: Executor, plan: Plan, out_uri: str) -> list[str]:
    """Write the training pictures, class after class, cut into parts; return the parts' names."""
    parts = {f"part-{number:05d}.tsv": part for number, part in enumerate(cut_into_parts(plan))}
    _delete_strangers(out_uri, set(parts))
    task = functools.partial(
        _make_part, out_uri=out_uri, recipe=plan.recipe, seed=plan.seed, digest=plan.digest
    )
    total = sum(each.num_images for each in plan.classes)
    progress = Progress(log, "training pictures", total, unit="pictures")
    num_kept = 0
    for part, is_kept in zip(parts.values(), pool.map(task, parts, parts.values()), strict=True):
        num_kept += is_kept
        progress.advance(sum(each.num_images for each in part))
    progress.finish()
    if num_kept:
        log.info("kept %d of %d parts of an interrupted run", num_kept, len(parts))
    return list(parts)


def _delete_strangers(out_uri: str, names: set[str]) -> None:
    """Delete the parts of an interrupted run of another plan that this one would not replace."""
    for info in list(storage.list_objects(storage.join(out_uri, _NOTES) + "/")):
        name = info.uri.rpartition("/")[2].removesuffix(".json")
        if name not in names:
            storage.delete(storage.join(out_uri, name))
            storage.delete(info.uri)


def _make_part(
    name: str,
    classes: list[PlannedClass],
    *,
    out_uri: str,
    recipe: LargeRecipe,
    seed: int,
    digest: str,
) -> bool:
    """Paint and write a part, or keep it if it lies there already: then return True (a task)."""
    uri, note_uri = storage.join(out_uri, name), storage.join(out_uri, _NOTES, f"{name}.json")
    if _is_made(uri, note_uri, digest):
        return True
    rows = io.BytesIO()
    for each in classes:
        for picture in _paint_class(each, recipe, seed):
            rows.write(b"%s\t%d\n" % (base64.b64encode(picture), each.label))
    content = rows.getvalue()
    storage.write_bytes(uri, content)
    note = {"plan": digest, "sha256": hashlib.sha256(content).hexdigest()}
    storage.write_bytes(note_uri, json.dumps(note).encode())
    return False


def _is_made(uri: str, note_uri: str, digest: str) -> bool:
    """Return whether the part is one of this plan, and its bytes are still those written."""
    try:
        note = json.loads(storage.read_bytes(note_uri, limit_bytes=4096))
        if not isinstance(note, dict) or note.get("plan") != digest:
            return False
        content = storage.read_bytes(uri)
    except (StorageError, ValueError):
        return False
    return bool(note.get("sha256") == hashlib.sha256(content).hexdigest())


def _paint_class(each: PlannedClass, recipe: LargeRecipe, seed: int) -> Iterator[bytes]:
    drawings = [ink(each.char, face) for face in each.faces]
    for number in range(each.num_images):
        place = number % len(drawings)
        drawing = drawings[place]
        assert drawing is not None, f"{each.faces[place].name} no longer draws {each.char!r}"
        yield paint_quickly(
            drawing,
            image_size=recipe.image_size,
            style=SMOOTH if (number + 1) % ROUGH_EVERY else ROUGH,
            key=(seed, "train", number, f"{ord(each.char):x}", each.faces[place].name),
        )


def _write_benchmarks(pool: Executor, plan: Plan, out_uri: str) -> None:
    """Write the pairs and samples of the characters held out; nothing if there are none."""
    alphabet, recipe = plan.held_out, plan.recipe
    held_out = {name: list(alphabet.shapes) for name in BENCHMARKS}
    held_out["glyph_slant"] = alphabet.fit_for_pairs()
    if len(held_out["glyph_slant"]) < _FEWEST_SLANTED:
        log.info(
            "no glyph_slant: of %d characters held out %d are drawn upright and slanted",
            len(alphabet.shapes), len(held_out["glyph_slant"]),
        )  # fmt: skip
        del held_out["glyph_slant"]
    if not alphabet.shapes:
        return
    for name, chars in held_out.items():
        benchmark = paint_benchmark(pool, recipe, alphabet, chars, name=name, seed=plan.seed)
        write_benchmark(out_uri, benchmark)
    write_samples(
        alphabet,
        list(alphabet.shapes),
        out_uri,
        categories=_LETTERS,
        image_size=recipe.image_size,
        seed=plan.seed,
    )
