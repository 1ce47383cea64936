"""The faces that a font file says it holds, read with limits: a font is a stranger's bytes.

Everything here is for a process of its own (``plsc.datasets.survey``), which bounds memory and time
as well: a few bytes of a character map may stand for four thousand million characters.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fontTools.ttLib import TTFont

from plsc.datasets.faces import Face
from plsc.errors import ConfigError

__all__ = ["Claim", "Refused", "find_files", "read_claims", "shown"]

log = logging.getLogger("plsc.datasets.fonts")

_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc", ".woff", ".woff2")
_MAX_BYTES = 128 * 1024**2
"""Larger files are skipped (the largest of Debian's is 60 MB)."""
_MAX_FACES = 64
_OUTLINES = ("glyf", "CFF ", "CFF2")
_ITALIC, _OBLIQUE = 1 << 0, 1 << 9
"""Bits of ``OS/2.fsSelection``."""


class Refused(Exception):  # noqa: N818  a verdict on one face, never seen by a caller of the package
    """A face cannot be used; the text says why."""


@dataclass(frozen=True)
class Claim:
    """What a face says of itself; whether it draws its characters is another matter."""

    face: Face
    characters: list[str]


def find_files(folder: Path) -> dict[str, Path]:
    """Return the font files below ``folder``: SHA-256 -> path, in the order of their paths.

    A file that lies there twice is named once; files that are too large are skipped with a warning.

    Raises:
        ConfigError: If there is no such folder, or no font in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"--fonts {folder}: expected a folder with font files, found none there")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _SUFFIXES or not path.is_file():
            continue
        if path.stat().st_size > _MAX_BYTES:
            log.warning("skipped %s: it is larger than %d MiB", shown(path), _MAX_BYTES >> 20)
            continue
        found.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    if not found:
        raise ConfigError(
            f"--fonts {folder}: expected font files ({' '.join(_SUFFIXES)}) below it, found none"
        )
    return found


def read_claims(path: Path, digest: str) -> Iterator[Claim | Refused]:
    """Yield what each face of a file claims, or why it cannot be used.

    Args:
        path: The file.
        digest: Its SHA-256, which tells faces of one name apart.

    Raises:
        Exception: Whatever fontTools raises on a damaged file.
    """
    with path.open("rb") as stream:
        beginning = stream.read(12)
    num_faces = int.from_bytes(beginning[8:12], "big") if beginning[:4] == b"ttcf" else 1
    if not 1 <= num_faces <= _MAX_FACES:
        raise Refused(f"a collection of {num_faces} faces, expected 1 to {_MAX_FACES}")
    for number in range(num_faces):
        with TTFont(path, lazy=True, fontNumber=number) as font:
            try:
                yield _claim(font, path, digest, number)
            except Refused as refused:
                yield refused


def _claim(font: TTFont, path: Path, digest: str, number: int) -> Claim:
    if not any(table in font for table in _OUTLINES):
        raise Refused("it holds bitmaps alone, which cannot be scaled")
    characters = font.getBestCmap() if "cmap" in font else None
    if not characters:
        raise Refused("it has no Unicode character map")
    names = font.get("name")
    of_file = _plain(path.stem) or digest[:8]
    family = _plain(names and names.getBestFamilyName()) or of_file
    own = _plain(names and names.getDebugName(6)) or of_file
    # Two versions of a font have one name: without the digest their pictures' names would clash.
    face = Face(f"{own}@{digest[:8]}", family, _is_slanted(font), str(path), number)
    return Claim(face, [chr(code) for code in sorted(characters) if code < 0x110000])


def shown(path: str | Path) -> str:
    """Return a path as text that can be written: names of files may be any bytes."""
    return os.fsencode(path).decode("utf-8", "replace")


def _plain(name: str | None) -> str:
    """Return a font's name as plain text of bounded length: it is shown and logged."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name or "")[:64].strip("-")


def _is_slanted(font: TTFont) -> bool:
    """Return whether a face is italic or oblique, as its tables say."""
    by_style = "OS/2" in font and bool(font["OS/2"].fsSelection & (_ITALIC | _OBLIQUE))
    by_angle = "post" in font and bool(font["post"].italicAngle)
    return by_style or by_angle
