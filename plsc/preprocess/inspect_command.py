"""``python -m plsc.preprocess inspect URI``: what a data set holds, and whether it is whole."""

import argparse
import logging
import os
import re
import sys
import tempfile
from collections.abc import Sequence

from plsc import storage
from plsc.errors import PlscError
from plsc.preprocess import contact_sheet, inspection_text
from plsc.preprocess.inspection import inspect

__all__ = ["main"]

_UNHEALTHY = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status.

    0: healthy; 2: the command line is wrong; 3: there are problems, or there is no index.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    size = re.fullmatch(r"(\d{1,3})x(\d{1,3})", given.sheet_size)
    columns, rows = (int(size[1]), int(size[2])) if size else (0, 0)
    if not columns * rows:
        parser.error(f"--sheet-size: expected COLUMNSxROWS such as 10x10, found {given.sheet_size}")
    _tell_progress()
    try:
        found = inspect(given.uri, is_deep=given.deep)
        if given.sheet:
            sheet = contact_sheet.render(found.dataset, columns=columns, rows=rows, seed=given.seed)
            storage.write_bytes(given.sheet, sheet)
    except PlscError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except OSError as error:
        folder = tempfile.gettempdir()
        sys.stderr.write(f"error: expected room for a shard in {folder}, found: {error}\n")
        return _UNHEALTHY
    if given.json:
        sys.stdout.write(inspection_text.to_json(found) + "\n")
    else:
        is_colored = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        sys.stdout.write(inspection_text.to_text(found, is_colored=is_colored))
        if given.sheet:
            sys.stdout.write(f"Contact sheet: {given.sheet}\n")
    return _UNHEALTHY if found.problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m plsc.preprocess inspect",
        description="Show what a data set holds, and whether it is whole.",
    )
    parser.add_argument(
        "uri",
        metavar="URI",
        help="an index.json that preprocess wrote, or the folder that holds it",
    )
    parser.add_argument(
        "--deep", action="store_true", help="read every shard and check all that the index says"
    )
    parser.add_argument(
        "--sheet", default="", metavar="PNG", help="draw samples at random into this file or uri"
    )
    parser.add_argument("--sheet-size", default="10x10", metavar="CxR", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the sheet (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    return parser


def _tell_progress() -> None:
    """Send the progress of long work to standard error: standard output is for the result."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("[inspect] %(message)s"))
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger("plsc").setLevel(logging.INFO)
