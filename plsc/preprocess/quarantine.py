"""Quarantine: bad rows, each with its reason, kept for a person instead of ending the stage."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from plsc import storage
from plsc.artifacts.shards import Quarantine
from plsc.errors import RecordError
from plsc.preprocess.inputs import Row

__all__ = ["Collected", "Entry", "Found", "QuarantineWriter", "check", "collect"]

_BEGINNING_BYTES = 120
_NUM_EXAMPLES = 12


class Entry(NamedTuple):
    """One bad row, as a JSON line of the quarantine tells it."""

    uri: str
    """The part."""
    line: int
    """Line, record or file of the part, counted from 1."""
    offset: int
    """Where it begins in the part, in bytes (of what a compressed part holds)."""
    reason: str
    """A word from ``records.Reason``."""
    detail: str
    """What was expected and found."""
    row: str
    """The row's beginning."""


class QuarantineWriter:
    """Collects the bad rows of one map task in a local file; lines count from its first row."""

    def __init__(self, path: Path) -> None:
        """Begin the file ``path``."""
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace")
        self._reasons: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def reasons(self) -> dict[str, int]:
        """Number of rows by reason."""
        return dict(sorted(self._reasons.items()))

    def add(self, uri: str, row: Row) -> None:
        """Add a bad row of the part at ``uri``, or of the file that it is itself."""
        assert row.bad is not None
        beginning = row.beginning.rstrip(b"\r\n")[:_BEGINNING_BYTES].decode(
            "utf-8", "backslashreplace"
        )
        reason, detail = row.bad.reason.value, str(row.bad)
        line = 1 if row.uri else row.number
        entry = Entry(row.uri or uri, line, row.offset, reason, detail, beginning)
        self._file.write(json.dumps(entry._asdict(), ensure_ascii=False) + "\n")
        self._reasons[reason] += 1


class Found(NamedTuple):
    """The quarantine of all map tasks."""

    quarantine: Quarantine
    examples: list[Entry]
    """The first few."""


class Collected(NamedTuple):
    """What one map task left, in the order of the tasks."""

    uri: str
    """Its bad rows; empty if there are none."""
    first_line: int
    """Line of the part at which it began, counted from 1."""
    reasons: dict[str, int]


def collect(tasks: Iterable[Collected], uri: str, scratch: Path) -> Found:
    """Put the bad rows of all tasks into one object at ``uri`` (none, if there are none).

    Args:
        tasks: What the map tasks left.
        uri: Where the quarantine goes.
        scratch: Local folder with room for it.

    Raises:
        StorageError: If the store refuses.
        OSError: If this disk has no room.
    """
    path = scratch / "quarantine.jsonl"
    reasons: Counter[str] = Counter()
    examples: list[Entry] = []
    with path.open("wb") as together:
        for task in tasks:
            reasons.update(task.reasons)
            if not task.uri:
                continue
            with storage.open_reader(task.uri) as reader:
                for content in reader:
                    entry = Entry(**json.loads(content))
                    entry = entry._replace(line=entry.line + task.first_line - 1)
                    text = json.dumps(entry._asdict(), ensure_ascii=False)
                    together.write(text.encode(errors="backslashreplace") + b"\n")
                    if len(examples) < _NUM_EXAMPLES:
                        examples.append(entry)
    if reasons:
        storage.upload(path, uri)
    path.unlink()
    num_rows = reasons.total()
    found = Quarantine(
        uri=uri if num_rows else "", num_rows=num_rows, reasons=dict(sorted(reasons.items()))
    )
    return Found(found, examples)


def check(quarantine: Quarantine, *, num_samples: int, max_bad_fraction: float) -> None:
    """Check that there are samples, and that few enough of the rows were bad.

    Raises:
        RecordError: If not; it names the counts and the quarantine.
    """
    reasons = ", ".join(f"{reason}: {count}" for reason, count in quarantine.reasons.items())
    num_rows = num_samples + quarantine.num_rows
    if num_rows == 0:
        raise RecordError("expected rows, found none: every part is empty")
    fraction = quarantine.num_rows / num_rows
    if num_samples and fraction <= max_bad_fraction:
        return
    raise RecordError(
        f"expected good rows, and at most {max_bad_fraction:.2%} bad ones"
        f" (preprocess.max_bad_fraction), found {quarantine.num_rows} bad of {num_rows}"
        f" ({fraction:.2%}; {reasons}): see {quarantine.uri}, then mend the input"
        " or raise the fraction"
    )
