"""What each pod that embeds runs: its share of every benchmark, unless that is there already.

::

    python -m plsc.evaluate.pod SHARES_URI

The index of the pod comes from the variable ``JOB_COMPLETION_INDEX``.
"""

import argparse
import logging
import os
import signal
import sys

from plsc import doorway, storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.cluster import reasons
from plsc.evaluate.shares import Shares
from plsc.models import as_embedder, restore
from plsc.verification import embed, read_benchmark

__all__: list[str] = []

log = logging.getLogger("plsc.evaluate.pod")  # not __name__: it is run as __main__


def _embed(shares: Shares, index: int) -> None:
    names = [n for n in shares.benchmarks if not storage.exists(shares.piece_uri(n, index))]
    if not names:
        return
    checkpoint = Checkpoint.from_json(shares.checkpoint.encode(), uri=shares.uri)
    embedder = as_embedder(restore(checkpoint))
    for name in names:
        benchmark = read_benchmark(shares.data_uri, name)
        shares.check(name)
        rows = shares.rows(len(benchmark.images), index)
        log.info("%s: %d of %d images", name, len(rows), len(benchmark.images))
        if not rows:
            continue
        embeddings = embed(
            benchmark.images[rows.start : rows.stop],
            embedder,
            image_size=int(checkpoint.provenance.config["image_size"]),
            flip=shares.flip,
            batch_size=shares.batch_size,
            name=f"{name}, images {rows.start} to {rows.stop - 1}",
        )
        shares.write(name, index, embeddings)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m plsc.evaluate.pod")
    parser.add_argument("shares_uri")
    given = parser.parse_args()
    # Process 1 of a container ignores what it has no handler for.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    index = int(os.environ["JOB_COMPLETION_INDEX"])
    folder_uri = given.shares_uri.rpartition("/")[0]
    with doorway.main("evaluate"), reasons.left_behind(folder_uri, index):
        _embed(Shares.model_validate_json(storage.read_bytes(given.shares_uri)), index)


if __name__ == "__main__":
    _main()
