"""The workforce: processes of this machine that do the tasks of a job, each as it becomes free."""

import json
import logging
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import TypeAlias

import plsc.errors
from plsc.errors import PlscError
from plsc.preprocess.shuffle.job import Job
from plsc.preprocess.shuffle.worker import do

__all__ = ["WorkerLostError", "Workforce"]

log = logging.getLogger(__name__)

_TRIES = 3
_ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    "MALLOC_ARENA_MAX": "2",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""Large pages, and large buffers that go back to the system when they are freed: without the first,
page faults take as long as all the rest; without the second, memory grows with the input."""

_Advance: TypeAlias = Callable[[int], None]


class WorkerLostError(PlscError):
    """A worker process ended in the middle of a task."""


class Workforce:
    """Does tasks: in this process if there is one worker, else in as many processes."""

    def __init__(self, job: Job) -> None:
        """Take the job, which is written already; processes start with the first tasks."""
        self._job = job
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._workers: list[_Worker] = []

    @contextmanager
    def hired(self) -> Iterator["Workforce"]:
        """Within the block workers may run; none is left after it."""
        for _ in range(self._job.num_workers):
            self._idle.put(None)
        try:
            yield self
        finally:
            for worker in self._workers:
                worker.end()

    def run(self, task: str, numbers: Iterable[int], advance: _Advance) -> None:
        """Do the tasks ``numbers`` of one kind.

        A task whose worker is killed is done again by another, three times in all.

        Args:
            task: ``map`` or ``reduce``.
            numbers: Which.
            advance: Told now and then how many bytes are done.

        Raises:
            PlscError: What the first task that failed raised; the others are given up.
            WorkerLostError: If a task's workers were killed three times.
        """
        waiting = list(numbers)
        if self._job.num_workers == 1 or len(waiting) <= 1:
            for number in waiting:
                do(self._job, task, number, advance)
            return
        with ThreadPoolExecutor(min(self._job.num_workers, len(waiting))) as pool:
            results = [pool.submit(self._do, task, number, advance) for number in waiting]
            try:
                done, _ = wait(results, return_when=FIRST_EXCEPTION)
                for result in done:
                    result.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in self._workers:
                    worker.end()
                raise

    def _do(self, task: str, number: int, advance: _Advance) -> None:
        for attempt in range(1, _TRIES + 1):
            worker = self._idle.get() or self._hire()
            try:
                worker.do(task, number, advance)
            except WorkerLostError as lost:
                self._idle.put(None)
                if attempt == _TRIES or not worker.was_killed_by_others:
                    raise
                log.warning("%s; another one does it again (try %d)", lost, attempt + 1)
            else:
                self._idle.put(worker)
                return

    def _hire(self) -> "_Worker":
        worker = _Worker(self._job)
        self._workers.append(worker)
        return worker


class _Worker:
    """One worker process."""

    def __init__(self, job: Job) -> None:
        self._is_ended = False
        command = [sys.executable, "-m", "plsc.preprocess.shuffle.worker", job.uri]
        self._process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_ENVIRONMENT | os.environ,
        )

    @property
    def was_killed_by_others(self) -> bool:
        """Whether a signal ended the process, and not ours."""
        return not self._is_ended and (self._process.poll() or 0) < 0

    def do(self, task: str, number: int, advance: _Advance) -> None:
        """Do one task.

        Raises:
            PlscError: What the task raised.
            WorkerLostError: If the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"task": task, "number": number}) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            answer = json.loads(line)
            if "advanced" in answer:
                advance(answer["advanced"])
            elif "done" in answer:
                return
            else:
                raise getattr(plsc.errors, answer["error"], PlscError)(answer["message"])
        code = self._process.wait()
        how = f"ended with code {code}"
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        raise WorkerLostError(
            f"a worker (pid {self._process.pid}) {how} in {task} task {number}: if memory ran out,"
            " lower preprocess.memory_mib or preprocess.workers; then run preprocess again"
        )

    def end(self) -> None:
        """End the process, whatever it is doing; what it was writing does not appear."""
        self._is_ended = True
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
