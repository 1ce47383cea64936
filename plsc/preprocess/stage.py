"""The preprocess stage: records in, a globally shuffled ShardSet out, every row accounted for."""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plsc import doorway, storage
from plsc.artifacts.shards import Quarantine, Shard, ShardSet
from plsc.conf.schema import PipelineConfig
from plsc.doorway import Stopwatch
from plsc.errors import RecordError, ShardError, StorageError
from plsc.preprocess import data_report, inputs, quarantine
from plsc.preprocess.inputs import Input
from plsc.preprocess.intake import Counts, take_in
from plsc.preprocess.partition import write_shards
from plsc.preprocess.quarantine import QuarantineWriter
from plsc.preprocess.reuse import find_complete, folder_of
from plsc.preprocess.shuffle import Spool

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
    """
    watch = Stopwatch()
    source = inputs.find(config.data_uri)
    folder_uri = folder_of(config, source)
    dataset = find_complete(folder_uri, also=[data_report.NAME])
    if dataset is not None:
        log.info(
            "nothing to do: %s is complete, from run %s", dataset.uri, dataset.provenance.run_id
        )
    else:
        log.info("reading %d parts of %s", len(source.parts), config.data_uri)
        dataset = _make(config, source, folder_uri, watch)
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


def _make(config: PipelineConfig, source: Input, folder_uri: str, watch: Stopwatch) -> ShardSet:
    settings = config.preprocess
    with (
        _scratch() as scratch,
        Spool(scratch, seed=config.seed) as spool,
        QuarantineWriter(scratch / "quarantine.jsonl") as bad_rows,
    ):
        counts = take_in(source, config, spool=spool, quarantine=bad_rows)
        quarantined = bad_rows.upload(storage.join(folder_uri, "quarantine.jsonl"))
        quarantine.check(
            quarantined,
            num_samples=counts.num_samples,
            max_bad_fraction=settings.max_bad_fraction,
        )
        rows = spool.shuffled()
        shards = write_shards(
            rows,
            samples_per_shard=settings.samples_per_shard,
            folder_uri=folder_uri,
            scratch=scratch,
        )
        dataset = _index(
            config,
            counts,
            labels=rows.labels,
            shards=shards,
            quarantined=quarantined,
            folder_uri=folder_uri,
            watch=watch,
        )
        report = data_report.render(dataset, config, rows, bad_rows.examples)
        storage.write_bytes(data_report.uri_of(dataset), report.encode())
    _check_unchanged(config, folder_uri)
    dataset.write(dataset.uri)
    return dataset


def _index(
    config: PipelineConfig,
    counts: Counts,
    *,
    labels: npt.NDArray[np.int64],
    shards: list[Shard],
    quarantined: Quarantine,
    folder_uri: str,
    watch: Stopwatch,
) -> ShardSet:
    num_written = sum(shard.num_samples for shard in shards)
    if not num_written == len(labels) == counts.num_samples:
        raise ShardError(
            f"{folder_uri}: read {counts.num_samples} samples, shuffled {len(labels)}, wrote"
            f" {num_written}: they should be equal; this is a bug of plsc"
        )
    images = np.unique(labels, return_counts=True)[1].tolist()
    num_classes = config.preprocess.num_classes or int(labels.max()) + 1
    num_empty = num_classes - len(images)
    if num_empty > num_classes // 2:
        log.warning(
            "%d of %d classes have no image: is a label wrong, or preprocess.num_classes?",
            num_empty,
            num_classes,
        )
    classes = Counter(images) | ({0: num_empty} if num_empty else {})
    return ShardSet(
        provenance=watch.provenance(config),
        uri=storage.join(folder_uri, "index.json"),
        num_samples=counts.num_samples,
        num_blank_rows=counts.num_blank,
        num_classes=num_classes,
        num_empty_classes=num_empty,
        images_per_class=dict(sorted(classes.items())),
        image_size=config.image_size,
        column_order=counts.column_order,
        shards=shards,
        quarantine=quarantined,
    )


def _check_unchanged(config: PipelineConfig, folder_uri: str) -> None:
    if folder_of(config, inputs.find(config.data_uri)) != folder_uri:
        raise RecordError(
            f"{config.data_uri}: the input changed while it was read: run preprocess again"
        )


@contextmanager
def _scratch() -> Iterator[Path]:
    """Give a local folder that is removed afterwards, and say it plainly when its disk is full."""
    with tempfile.TemporaryDirectory(prefix="plsc-preprocess-") as folder:
        try:
            yield Path(folder)
        except OSError as error:
            raise StorageError(
                f"{folder}: {error.strerror or error}: preprocess needs room there for all decoded"
                " images and one shard: free some, or set TMPDIR to another disk"
            ) from error
