"""Map: one item of the input becomes sorted runs, a summary, and quarantine lines."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from plsc import storage
from plsc.artifacts.index import Value
from plsc.preprocess.inputs import Item, Row, read
from plsc.preprocess.quarantine import QuarantineWriter
from plsc.preprocess.shuffle.arena import arena
from plsc.preprocess.shuffle.job import Job, read_value, write_value
from plsc.preprocess.shuffle.runs import Run, RunBuffer, key_function

__all__ = ["Summary", "label_of_name", "map_item"]

_ADVANCE_BYTES = 1 << 20


class Summary(Value):
    """What one map task found; the object that says it is done."""

    runs: list[Run]
    num_samples: int
    num_repeated: int
    """Samples that are in no run because an equal one is (with ``deduplicate``)."""
    num_blank: int
    num_rows: int
    """All rows, the blank and the bad ones too."""
    reasons: dict[str, int]
    """Number of bad rows by reason."""
    forms: dict[str, int]
    """Number of good rows by form."""
    names: dict[str, int]
    """Class name -> the label that stands for it; empty if labels are integers."""


def label_of_name(name: bytes) -> int:
    """Return 63 bits that stand for a class name: the beginning of its SHA-256 digest."""
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1


def map_item(job: Job, number: int, advance: Callable[[int], None]) -> None:
    """Run map task ``number``; doing it again writes the same bytes.

    Args:
        job: The job.
        number: Which of its items.
        advance: Told now and then how many bytes of input are done.

    Raises:
        StorageError: If reading or writing fails.
        RecordError: If the item cannot be read to its end.
        OSError: If this disk has no room for the bad rows.
    """
    item = read_value(Item, job.map_uri(number, ".item.json"))
    with tempfile.TemporaryDirectory(prefix="plsc-map-") as scratch:
        path = Path(scratch) / "quarantine.jsonl"
        with QuarantineWriter(path) as quarantine:
            task = _MapTask(job, number, item.uri, quarantine)
            pending = 0
            for row in read(item, job.judge()):
                task.take(row)
                pending += row.size_bytes
                if pending >= _ADVANCE_BYTES:
                    advance(pending)
                    pending = 0
            advance(pending)
            summary = task.finish()
        if summary.reasons:
            storage.upload(path, job.map_uri(number, ".quarantine.jsonl"))
    write_value(job.map_uri(number, ".json"), summary)


class _MapTask:
    """Takes the rows of one item one by one."""

    def __init__(self, job: Job, number: int, uri: str, quarantine: QuarantineWriter) -> None:
        self._job = job
        self._number = number
        self._uri = uri
        self._quarantine = quarantine
        self._key_of = key_function(job.seed)
        self._buffer = RunBuffer(arena(job.memory_bytes)[: 2 * job.run_bytes])
        self._runs: list[Run] = []
        self._names: dict[bytes, int] = {}
        self._forms: Counter[str] = Counter()
        self._num_samples = self._num_blank = self._num_rows = self._num_repeated = 0

    def take(self, row: Row) -> None:
        """Put a row where it belongs."""
        self._num_rows += 1
        image = row.image
        if image:
            if not self._buffer.has_room(image):
                self._flush()
            label = row.label
            if not isinstance(label, int):
                label = self._named(label)
            self._buffer.append(self._key_of(image), label, image)
            self._forms[row.form] += 1
            self._num_samples += 1
        elif row.bad is not None:
            self._quarantine.add(self._uri, row)
        else:
            self._num_blank += 1

    def _named(self, name: bytes) -> int:
        label = self._names.get(name)
        if label is None:
            label = self._names[name] = label_of_name(name)
        return label

    def _flush(self) -> None:
        if not len(self._buffer):
            return
        uri = self._job.map_uri(self._number, f"-{len(self._runs):04d}.run")
        run = self._buffer.take(deduplicate=self._job.deduplicate)
        storage.write_bytes(uri, run.content, durable=False)
        self._runs.append(Run(uri=uri, num_samples=run.num_samples, table_start=run.table_start))
        self._num_repeated += run.num_repeated

    def finish(self) -> Summary:
        """Write what is left and return the summary."""
        self._flush()
        return Summary(
            runs=self._runs,
            num_samples=self._num_samples,
            num_repeated=self._num_repeated,
            num_blank=self._num_blank,
            num_rows=self._num_rows,
            reasons=self._quarantine.reasons,
            forms=dict(sorted(self._forms.items())),
            names={name.decode(): label for name, label in self._names.items()},
        )
