"""The intake: every row goes to the spool or to quarantine, or is blank; none is lost."""

import logging
from collections import defaultdict
from dataclasses import dataclass

from plsc.conf.schema import PipelineConfig
from plsc.preprocess.inputs import Input
from plsc.preprocess.quarantine import QuarantineWriter
from plsc.preprocess.shuffle import Spool
from plsc.progress import Progress

__all__ = ["Counts", "take_in"]

log = logging.getLogger(__name__)


@dataclass
class Counts:
    """What became of the rows."""

    num_samples: int = 0
    num_bad: int = 0
    num_blank: int = 0
    column_order: str = "unknown"
    """The order of all rows, ``mixed`` if they differ, ``unknown`` if none was good."""


def take_in(
    source: Input, config: PipelineConfig, *, spool: Spool, quarantine: QuarantineWriter
) -> Counts:
    """Read all of ``source``: good rows into ``spool``, bad ones into ``quarantine``.

    Raises:
        StorageError: If reading fails on the way.
        OSError: If this disk has no room.
    """
    counts = Counts()
    parts_by_order: defaultdict[str, list[str]] = defaultdict(list)
    total = sum(source.files[part].size_bytes >> 10 for part in source.parts)
    progress = Progress(log, "reading", total, unit="KiB")
    for part in source.parts:
        orders = _take_in_part(
            source,
            part,
            config=config,
            counts=counts,
            progress=progress,
            spool=spool,
            quarantine=quarantine,
        )
        spool.end_part(part)
        for order in sorted(orders):
            parts_by_order[order].append(part)
    progress.finish()
    counts.column_order = _say_order(parts_by_order)
    return counts


def _take_in_part(
    source: Input,
    part: str,
    *,
    config: PipelineConfig,
    counts: Counts,
    progress: Progress,
    spool: Spool,
    quarantine: QuarantineWriter,
) -> set[str]:
    """Take in one part, add to ``counts``, and return the column orders that it has."""
    uri = source.files[part].uri
    orders: set[str] = set()
    num_rows = 0
    for row in source.read(part, config):
        progress.advance((row.line.end >> 10) - (row.line.start >> 10))
        if row.record is not None:
            spool.append(row.line.start, row.record)
            orders.add(row.order)
            counts.num_samples += 1
        elif row.bad is not None:
            quarantine.add(uri, row.line, row.bad)
            counts.num_bad += 1
        else:
            counts.num_blank += 1
            continue
        num_rows += 1
    if not num_rows:
        log.warning("%s: the part is empty", uri)
    return orders


def _say_order(parts_by_order: dict[str, list[str]]) -> str:
    for order, parts in parts_by_order.items():
        few = ", ".join(parts[:3]) + (", ..." if len(parts) > 3 else "")
        log.info("columns are %s in %d parts (%s)", order, len(parts), few)
    if len(parts_by_order) > 1:
        log.warning("the column orders differ: each row was read in its own")
        return "mixed"
    return next(iter(parts_by_order), "unknown")
