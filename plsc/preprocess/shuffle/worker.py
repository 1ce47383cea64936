"""A worker: a process that does the map and reduce tasks that the driver on this machine hands out.

It takes tasks from standard input, a JSON line each, and answers in JSON lines::

    {"task": "map", "number": 12}
                                    {"advanced": 1048576}      now and then
                                    {"done": 12}               or
                                    {"error": "StorageError", "message": "..."}
"""

import argparse
import errno
import gc
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import TextIO

from plsc import storage
from plsc.errors import PlscError, StorageError
from plsc.preprocess.shuffle.job import Job, read_value
from plsc.preprocess.shuffle.mapping import map_item
from plsc.preprocess.shuffle.reducing import reduce_range

__all__ = ["FULL", "TASKS", "do", "is_done"]

TASKS: dict[str, Callable[[Job, int, Callable[[int], None]], None]] = {
    "map": map_item,
    "reduce": reduce_range,
}
"""Kind -> what does task ``number`` of it."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when there is no more room."""

_LOOK_EVERY_S = 0.5
_TELL_EVERY_S = 0.25


def do(job: Job, task: str, number: int, advance: Callable[[int], None]) -> None:
    """Do one task.

    Raises:
        PlscError: As the task does.
        StorageError: Also if this disk has no room.
    """
    try:
        TASKS[task](job, number, advance)
    except OSError as error:
        advice = "is the disk sound?"
        if error.errno in FULL:
            advice = "it needs room there for the bad rows that it finds: free some"
        raise StorageError(
            f"{tempfile.gettempdir()}: {task} task {number}: {error.strerror or error}: {advice}"
        ) from error


def is_done(job: Job, task: str, number: int) -> bool:
    """Return whether a task has written what says so.

    Raises:
        StorageError: If the store cannot be asked.
    """
    place = job.map_uri if task == "map" else job.reduce_uri
    return storage.exists(place(number, ".json"))


class _Teller:
    """Tells the driver how far a task is, a few times a second."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._pending = 0
        self._last = time.monotonic()

    def advance(self, num_bytes: int) -> None:
        self._pending += num_bytes
        if time.monotonic() - self._last > _TELL_EVERY_S:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self.say({"advanced": self._pending})
        self._pending = 0
        self._last = time.monotonic()

    def say(self, answer: dict[str, object]) -> None:
        self._out.write(json.dumps(answer) + "\n")
        self._out.flush()


def _serve(job_uri: str, out: TextIO) -> None:
    teller = _Teller(out)
    job: Job | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            job = job or read_value(Job, job_uri)
            do(job, asked["task"], asked["number"], teller.advance)
        except PlscError as error:
            teller.say({"error": type(error).__name__, "message": str(error)})
            continue
        teller.flush()
        teller.say({"done": asked["number"]})


def _end_with(parent: int) -> None:
    """End this process soon after its parent ended, whatever it is doing."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m plsc.preprocess.shuffle.worker")
    parser.add_argument("job_uri")
    parser.add_argument("--parent", type=int, required=True, help="the driver: ends with it")
    given = parser.parse_args()
    gc.set_threshold(100_000)  # tasks make many objects and no cycles
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and cleans up first
    _end_with(given.parent)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    _serve(given.job_uri, out)


if __name__ == "__main__":
    _main()
