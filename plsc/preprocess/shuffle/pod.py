"""What each pod of an Indexed Job runs: the tasks of its index that are not done yet.

With W pods, the one of index i does the tasks i, i + W, i + 2 W, ... of one kind, a few at once::

    python -m plsc.preprocess.shuffle.pod JOB_URI --task map --pods 8 --processes 2

The index comes from the variable ``JOB_COMPLETION_INDEX``. A pod that takes another's place skips
the tasks that are done.
"""

import argparse
import gc
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from plsc import doorway, storage
from plsc.cluster import reasons
from plsc.preprocess.shuffle.job import Job, read_value
from plsc.preprocess.shuffle.worker import TASKS, is_done
from plsc.preprocess.shuffle.workforce import Workforce
from plsc.progress import ByteProgress

__all__: list[str] = []

log = logging.getLogger("plsc.preprocess.shuffle.pod")  # not __name__: it is run as __main__


def _share(job: Job, task: str, index: int, *, pods: int, processes: int) -> None:
    """Do the tasks of this index that are not done."""
    mine = list(_planned(job, task, index, pods))
    left = [number for number in mine if not is_done(job, task, number)]
    log.info("%s, index %d: %d of %d tasks are left", task, index, len(left), len(mine))
    progress = ByteProgress(log, task, 0)
    with (
        tempfile.TemporaryDirectory(prefix="plsc-preprocess-") as scratch,
        Workforce(job, Path(scratch), processes=processes).hired() as workforce,
    ):
        workforce.run(task, left, progress.advance)
    progress.finish()


def _planned(job: Job, task: str, index: int, pods: int) -> Iterator[int]:
    if task == "map":
        yield from range(index, job.num_items, pods)
        return
    number = index
    while storage.exists(job.reduce_uri(number, ".plan.json")):
        yield number
        number += pods


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m plsc.preprocess.shuffle.pod")
    parser.add_argument("job_uri")
    parser.add_argument("--task", choices=sorted(TASKS), required=True, help="the kind of tasks")
    parser.add_argument("--pods", type=int, required=True, help="pods of the job, W")
    parser.add_argument("--processes", type=int, default=1, help="tasks to do at once")
    given = parser.parse_args()
    # Process 1 of a container ignores what it has no handler for.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    gc.set_threshold(100_000)  # tasks make many objects and no cycles
    index = int(os.environ["JOB_COMPLETION_INDEX"])
    work_uri = given.job_uri.rpartition("/")[0]
    with doorway.main("preprocess"), reasons.left_behind(work_uri, index):
        job = read_value(Job, given.job_uri)
        _share(job, given.task, index, pods=given.pods, processes=given.processes)


if __name__ == "__main__":
    _main()
