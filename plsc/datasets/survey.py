"""What the faces of a folder really draw: every character once, each file in its own process.

A font file can crash the library that reads it, or ask it for all memory: the process that looks at
it is bounded, and when it dies the file is skipped by name. What came through has been drawn once,
so that painting from it later meets nothing new.
"""

import collections
import hashlib
import json
import logging
import multiprocessing
import resource
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plsc.datasets.alphabet import has_its_own_shape, says_something, shape_of
from plsc.datasets.chance import rank
from plsc.datasets.faces import EM_PIXELS, Face, ink
from plsc.datasets.fonts import Claim, Refused, read_claims, shown
from plsc.progress import Progress

__all__ = ["Surveyed", "survey"]

log = logging.getLogger("plsc.datasets.survey")

_MEMORY_BYTES = 1024**3
_SECONDS = 900
"""What one font file may take (64,000 ideographs take 20 s)."""
_MAX_PIXELS = 4 * EM_PIXELS
"""Longer drawings are no characters."""
_FALLBACK = 8
"""So many characters with one and the same drawing show the font's fallback, not themselves."""
_SAMPLE = 256
_VARIANT = 0.5
"""A face that shares so many drawings with an earlier one of its file is a variant of it."""
_VARIANTS_IN_SIZE = ("<wide>", "<narrow>", "<small>")

_Drawings = dict[str, tuple[int, npt.NDArray[np.uint8]]]
"""Character -> (digest of the drawing, its shape)."""


@dataclass(frozen=True)
class Surveyed:
    """What one face draws."""

    face: Face
    codes: npt.NDArray[np.uint32]
    """Code points, increasing: [n]."""
    digests: npt.NDArray[np.uint64]
    """Equal where the drawings are: [n]."""
    shapes_file: Path
    """Their shapes, [n, 32, 32], as a ``.npy`` file."""
    counts: dict[str, int]
    """How many characters it claims, and how many of them are blank, bars or fallbacks."""

    def shapes(self) -> npt.NDArray[np.uint8]:
        """Return the shapes of the drawings, mapped from disk: [n, 32, 32]."""
        return np.asarray(np.load(self.shapes_file, mmap_mode="r"))


def survey(
    files: dict[str, Path], work: Path, *, processes: int
) -> tuple[list[Surveyed], dict[str, list[str]]]:
    """Return what all faces draw, those with most characters first, and what was skipped and why.

    Args:
        files: SHA-256 -> font file.
        work: Empty folder for the shapes, about 1 KB per character and face; they stay mapped.
        processes: Files to look at at a time.
    """
    progress = Progress(log, "survey of fonts", len(files), unit="files")
    surveyed: list[Surveyed] = []
    skipped: dict[str, list[str]] = {}
    with ThreadPoolExecutor(processes) as threads:
        looks = threads.map(_look, files.values(), files, [work] * len(files))
        for path, (faces, reasons) in zip(files.values(), looks, strict=True):
            surveyed += faces
            for reason in reasons:
                skipped.setdefault(shown(path.name), []).append(reason)
                log.warning("skipped in %s: %s", shown(path), reason)
            progress.advance()
    progress.finish()
    return sorted(surveyed, key=lambda face: (-len(face.codes), face.face.name)), skipped


def _look(path: Path, digest: str, work: Path) -> tuple[list[Surveyed], list[str]]:
    """Let a process of its own look at a file, and return what it left behind."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_survey_file, args=(path, digest, work), daemon=True)
    process.start()
    process.join(2 * _SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
    outcome = work / f"{digest}.json"
    if not outcome.exists():
        return [], [f"the process that read it died (exit code {process.exitcode})"]
    document = json.loads(outcome.read_text())
    faces = []
    for entry in document["faces"]:
        number = entry["face"]["number"]
        codes, digests = (np.load(_file(work, digest, number, kind)) for kind in _SMALL)
        shapes_file = _file(work, digest, number, "shapes")
        face = Face(**entry["face"])
        faces.append(Surveyed(face, codes, digests, shapes_file, entry["counts"]))
    return faces, document["skipped"]


_SMALL = ("codes", "digests")


def _file(work: Path, digest: str, number: int, kind: str) -> Path:
    return work / f"{digest}-{number}-{kind}.npy"


def _survey_file(path: Path, digest: str, work: Path) -> None:
    """Draw all that a file's faces claim; leave arrays and, last, the outcome (a process)."""
    _bound()
    logging.disable()  # fontTools' remarks on every oddity of every table
    faces: list[dict[str, object]] = []
    skipped: list[str] = []
    earlier: list[tuple[Face, dict[str, int]]] = []
    try:
        for claim in read_claims(path, digest):
            if isinstance(claim, Refused):
                skipped.append(str(claim))
                continue
            counts: collections.Counter[str] = collections.Counter(claimed=len(claim.characters))
            face, drawings = _draw(claim, earlier, counts)
            if not drawings:
                skipped.append(f"{face.name}: it draws nothing that this file's others do not")
                continue
            earlier.append((face, {char: digest for char, (digest, _) in drawings.items()}))
            _save(work, digest, face.number, drawings)
            faces.append({"face": asdict(face), "counts": dict(counts)})
    except Exception as error:  # noqa: BLE001  whatever a damaged file makes the parsers raise
        skipped.append(f"{type(error).__name__}: {error}"[:200])
    outcome = work / f"{digest}.json"
    outcome.with_suffix(".tmp").write_text(json.dumps({"faces": faces, "skipped": skipped}))
    outcome.with_suffix(".tmp").rename(outcome)


def _bound() -> None:
    """Bound what this process may take from now on."""
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        taken = int(statistics.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY_BYTES, taken + _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))


def _draw(
    claim: Claim, earlier: list[tuple[Face, dict[str, int]]], counts: collections.Counter[str]
) -> tuple[Face, _Drawings]:
    """Return a face and its drawings; of a variant only those that earlier faces lack."""
    face = claim.face
    chars = [char for char in claim.characters if _is_candidate(char)]
    sample = sorted(chars, key=lambda char: rank("sample", char))[:_SAMPLE]
    sampled = _drawings(claim.face, sample, collections.Counter())
    for other, known in earlier:
        common = [char for char in sampled if char in known]
        same = sum(known[char] == sampled[char][0] for char in common)
        if same > _VARIANT * len(common):
            chars = [char for char in chars if char not in known]
            face = replace(face, family=other.family)
    return face, _without_fallbacks(claim, _drawings(face, chars, counts), counts)


def _is_candidate(char: str) -> bool:
    """Return whether a character may be a class: its own shape, at no other's size."""
    return has_its_own_shape(char) and not unicodedata.decomposition(char).startswith(
        _VARIANTS_IN_SIZE
    )


def _drawings(face: Face, chars: list[str], counts: collections.Counter[str]) -> _Drawings:
    drawings: _Drawings = {}
    for char in chars:
        try:
            drawing = ink(char, face)
        except (OSError, MemoryError, ValueError):  # FreeType cannot draw this one
            counts["broken"] += 1
            continue
        if drawing is None:
            counts["blank"] += 1
        elif max(drawing.size) > _MAX_PIXELS or not says_something(drawing):
            counts["bars"] += 1
        else:
            content = repr(drawing.size).encode() + drawing.tobytes()
            digest = hashlib.blake2b(content, digest_size=8).digest()
            drawings[char] = int.from_bytes(digest, "big"), shape_of(drawing)
    return drawings


def _without_fallbacks(
    claim: Claim, drawings: _Drawings, counts: collections.Counter[str]
) -> _Drawings:
    """Leave out the drawing of characters that the face lacks, and any that very many share."""
    claimed = set(claim.characters)
    lacking = next(chr(code) for code in range(0x10FFFD, 0, -1) if chr(code) not in claimed)
    missing = {
        digest for digest, _ in _drawings(claim.face, [lacking], collections.Counter()).values()
    }
    shared = collections.Counter(digest for digest, _ in drawings.values())
    kept = {
        char: drawing
        for char, drawing in drawings.items()
        if drawing[0] not in missing and shared[drawing[0]] < _FALLBACK
    }
    counts["fallback"] += len(drawings) - len(kept)
    return kept


def _save(work: Path, digest: str, number: int, drawings: _Drawings) -> None:
    chars = sorted(drawings)
    codes = np.array([ord(char) for char in chars], np.uint32)
    digests = np.array([drawings[char][0] for char in chars], np.uint64)
    shapes = np.stack([drawings[char][1] for char in chars])
    for kind, array in (("codes", codes), ("digests", digests), ("shapes", shapes)):
        np.save(_file(work, digest, number, kind), array)
