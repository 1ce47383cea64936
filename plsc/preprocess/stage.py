"""The preprocess stage: the input in, a globally shuffled ShardSet out, every row accounted for.

Map tasks read the input piece by piece and write runs, sorted by key; the order of all samples is
found from the runs' tables; reduce tasks gather ranges of keys and write shards; the index is
written last. No step holds more than a worker's memory, and each can be done again.
"""

import logging
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from plsc import doorway, storage
from plsc.artifacts.shards import ShardSet
from plsc.cluster import is_in_cluster
from plsc.conf.schema import PipelineConfig
from plsc.doorway import Stopwatch
from plsc.errors import ArtifactError, ConfigError, PlscError, RecordError, StorageError
from plsc.preprocess import data_report, quarantine
from plsc.preprocess.inputs import Input, Item
from plsc.preprocess.inputs.finding import find
from plsc.preprocess.quarantine import Collected
from plsc.preprocess.reuse import find_complete, folder_of
from plsc.preprocess.shuffle import hiring, planning
from plsc.preprocess.shuffle.hiring import Hands
from plsc.preprocess.shuffle.job import Job, read_value
from plsc.preprocess.shuffle.mapping import Summary
from plsc.preprocess.shuffle.ordering import Order, find_order
from plsc.preprocess.shuffle.reducing import Reduced
from plsc.preprocess.shuffle.seal import CLASSES, seal
from plsc.preprocess.shuffle.worker import FULL, is_done
from plsc.progress import ByteProgress

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(config: PipelineConfig) -> ShardSet:
    """Make the data set of ``config``, or find it made, and write this run's index of it.

    Returns:
        The index; its provenance is this run's, the one at its ``uri`` is that of the run that made
        the data set.

    Raises:
        RecordError: If the input cannot be used, or too much of it is bad.
        StorageError: If the store or this disk does not give or take what it should.
        ShardError: If what was written is not what should have been.
        WorkerLostError: If worker processes are killed again and again.
        ConfigError: If ``preprocess.pods`` are asked for where there is no cluster.
        ClusterError: If those pods cannot be had, or fail.
    """
    watch = Stopwatch()
    source = find(config)
    folder_uri = folder_of(config, source)
    dataset = _find(folder_uri)
    if dataset is not None:
        log.info(
            "nothing to do: %s is complete, from run %s", dataset.uri, dataset.provenance.run_id
        )
    else:
        try:
            dataset = _make(config, source, folder_uri, watch)
        except PlscError:
            # Another run may have finished the same data set, and cleared the work away.
            dataset = _find(folder_uri)
            if dataset is None:
                raise
    dataset = dataset.model_copy(update={"provenance": watch.provenance(config)})
    dataset.write(doorway.index_uri(config, "preprocess"))
    log.info(
        "%d samples of %d classes in %d shards, %d rows in quarantine: %s",
        dataset.num_samples,
        dataset.num_classes,
        len(dataset.shards),
        dataset.quarantine.num_rows,
        dataset.uri,
    )
    return dataset


def _find(folder_uri: str) -> ShardSet | None:
    return find_complete(folder_uri, also=[data_report.NAME, CLASSES])


def _make(config: PipelineConfig, source: Input, folder_uri: str, watch: Stopwatch) -> ShardSet:
    hiring.check(config)
    with _ended_by_sigterm(), _cleared_away(folder_uri, config.run_id), _scratch() as scratch:
        job, items = planning.begin(config, source, folder_uri)
        with hiring.hired(config, job, scratch) as hands:
            summaries = _map(job, items, hands)
            found = quarantine.collect(
                _collected(job, items, summaries),
                storage.join(folder_uri, "quarantine.jsonl"),
                scratch,
            )
            quarantine.check(
                found.quarantine,
                num_samples=sum(summary.num_samples for summary in summaries),
                max_bad_fraction=config.preprocess.max_bad_fraction,
            )
            order = find_order(job, summaries, scratch)
            _say_order(order)
            reduced = _reduce(job, order, hands)
        dataset = seal(
            config,
            job,
            layout=source.layout,
            column_order=_column_order(source, summaries),
            num_blank=sum(summary.num_blank for summary in summaries),
            quarantined=found.quarantine,
            order=order,
            reduced=reduced,
            provenance=watch.provenance(config),
        )
        report = data_report.render(dataset, config, found.examples, scratch)
        storage.write_bytes(data_report.uri_of(dataset), report.encode())
        _check_unchanged(config, folder_uri)
        dataset.write(dataset.uri)
    return dataset


def _map(job: Job, items: Sequence[Item], hands: Hands) -> list[Summary]:
    left = {n: item.size_bytes for n, item in enumerate(items) if not is_done(job, "map", n)}
    parts = len({item.part for item in items})
    log.info(
        "map: %d parts in %d items%s, %d workers", parts, len(items),
        f" ({len(items) - len(left)} done before)" if len(left) < len(items) else "",
        job.num_workers,
    )  # fmt: skip
    progress = ByteProgress(log, "map", sum(left.values()))
    hands.run("map", left, progress.advance)
    progress.finish()
    summaries = [read_value(Summary, job.map_uri(n, ".json")) for n in range(job.num_items)]
    rows: Counter[str] = Counter()
    for item, summary in zip(items, summaries, strict=True):
        rows[item.uri] += summary.num_rows - summary.num_blank
    for uri, num_rows in rows.items():
        if not num_rows:
            log.warning("%s: the part is empty", uri)
    return summaries


def _reduce(job: Job, order: Order, hands: Hands) -> list[Reduced]:
    fair = order.num_bytes // order.num_tasks
    left = {n: fair for n in range(order.num_tasks) if not is_done(job, "reduce", n)}
    progress = ByteProgress(log, "reduce", sum(left.values()))
    hands.run("reduce", left, progress.advance)
    progress.finish()
    return [read_value(Reduced, job.reduce_uri(n, ".json")) for n in range(order.num_tasks)]


def _collected(
    job: Job, items: Sequence[Item], summaries: Sequence[Summary]
) -> Iterator[Collected]:
    """Yield where each task's bad rows lie, and at which line of the part its item begins."""
    lines: Counter[str] = Counter()
    for number, (item, summary) in enumerate(zip(items, summaries, strict=True)):
        uri = job.map_uri(number, ".quarantine.jsonl") if summary.reasons else ""
        yield Collected(uri, lines[item.part] + 1, summary.reasons)
        lines[item.part] += summary.num_rows


def _say_order(order: Order) -> None:
    log.info(
        "order: %d samples of %d classes, %d repeated (%d removed), %d images under several labels",
        order.num_samples, order.classes.num_classes, order.duplicates.num_repeated,
        order.duplicates.num_removed, order.duplicates.num_conflicting,
    )  # fmt: skip
    if order.left_out.num_classes:
        log.info(
            "%d classes with %d images are left out (preprocess.min_images_per_class)",
            order.left_out.num_classes, order.left_out.num_rows,
        )  # fmt: skip
    if order.classes.num_empty > order.classes.num_classes // 2:
        log.warning(
            "%d of %d classes have no image: is a label wrong, or preprocess.num_classes?",
            order.classes.num_empty, order.classes.num_classes,
        )  # fmt: skip


def _column_order(source: Input, summaries: Sequence[Summary]) -> str:
    """Return the order of the columns of base64 records, ``mixed`` if rows differ."""
    if source.layout != "records":
        return ""
    forms = sorted({form for summary in summaries for form in summary.forms})
    if len(forms) > 1:
        log.warning("the column orders differ: each row was read in its own")
        return "mixed"
    return forms[0]


def _check_unchanged(config: PipelineConfig, folder_uri: str) -> None:
    if folder_of(config, find(config)) != folder_uri:
        raise RecordError(
            f"{config.data_uri}: the input changed while it was read: run preprocess again"
        )


@contextmanager
def _cleared_away(folder_uri: str, run_id: str) -> Iterator[None]:
    """Remove the run's temporary objects at the end, and at success those of killed runs too.

    On a cluster a step's pod is moved, or its run terminated and retried later: then it comes back
    under the same run id and goes on. Only where the input or a setting is at fault does it not.
    """
    work_uri = storage.join(folder_uri, "work")
    try:
        yield
    except BaseException as error:
        if not is_in_cluster() or isinstance(error, ArtifactError | ConfigError):
            with suppress(StorageError):
                # First what says that there is work to go on with: this may be cut off.
                storage.delete(storage.join(work_uri, run_id, "job.json"))
                storage.delete_prefix(storage.join(work_uri, run_id))
        raise
    storage.delete_prefix(work_uri)


@contextmanager
def _scratch() -> Iterator[Path]:
    """Give a local folder that is removed afterwards, and say it plainly when its disk is full."""
    with tempfile.TemporaryDirectory(prefix="plsc-preprocess-") as folder:
        try:
            yield Path(folder)
        except OSError as error:
            advice = "is the disk sound?"
            if error.errno in FULL:
                advice = (
                    "preprocess needs room there for 32 bytes a sample and the bad rows: free some,"
                    " or set TMPDIR to another disk"
                )
            raise StorageError(f"{folder}: {error.strerror or error}: {advice}") from error


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM (a pod that is moved, a service that stops) end the run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
