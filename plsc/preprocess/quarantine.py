"""Quarantine: bad rows, each with its reason, kept for a person instead of ending the stage."""

import json
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from plsc import storage
from plsc.artifacts.records import BadRowError, Line
from plsc.artifacts.shards import Quarantine
from plsc.errors import RecordError

__all__ = ["Entry", "QuarantineWriter", "check"]

_BEGINNING_BYTES = 120
_NUM_EXAMPLES = 12


class Entry(NamedTuple):
    """One bad row, as a JSON line of the quarantine tells it."""

    uri: str
    """The part."""
    line: int
    """Counted from 1."""
    reason: str
    """A word from ``records.Reason``."""
    detail: str
    """What was expected and found."""
    row: str
    """The row's beginning."""


class QuarantineWriter:
    """Collects bad rows in a local file."""

    def __init__(self, path: Path) -> None:
        """Begin the file ``path``."""
        self._path = path
        self._file = path.open("w", encoding="utf-8")
        self._reasons: Counter[str] = Counter()
        self.examples: list[Entry] = []
        """The first few."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, uri: str, line: Line, bad: BadRowError) -> None:
        """Add the bad ``line`` of the part at ``uri``."""
        beginning = line.row[:_BEGINNING_BYTES].decode("utf-8", "backslashreplace")
        entry = Entry(uri, line.number, bad.reason.value, str(bad), beginning)
        self._file.write(json.dumps(entry._asdict(), ensure_ascii=False) + "\n")
        self._reasons[entry.reason] += 1
        if len(self.examples) < _NUM_EXAMPLES:
            self.examples.append(entry)

    def upload(self, uri: str) -> Quarantine:
        """Write what was collected to ``uri`` (nothing, if nothing was) and return its summary.

        Raises:
            StorageError: If the store refuses.
        """
        self._file.flush()
        if self._reasons:
            storage.upload(self._path, uri)
        return Quarantine(
            uri=uri if self._reasons else "",
            num_rows=self._reasons.total(),
            reasons=dict(sorted(self._reasons.items())),
        )


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
