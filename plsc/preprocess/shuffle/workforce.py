"""The workforce: processes of this machine that do the tasks of a job, each as it becomes free."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import plsc.errors
from plsc.errors import PlscError
from plsc.preprocess.shuffle.arena import release
from plsc.preprocess.shuffle.job import Job
from plsc.preprocess.shuffle.worker import do

__all__ = ["ENVIRONMENT", "WorkerLostError", "Workforce"]

log = logging.getLogger(__name__)

_TRIES = 3
_GRACE_S = 5.0
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    "MALLOC_ARENA_MAX": "2",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Large pages; large buffers go back to the system when they are freed, so memory does not grow
with the input; no threads for the linear algebra that is not done here."""

_Advance: TypeAlias = Callable[[int], None]


class WorkerLostError(PlscError):
    """A worker process ended in the middle of a task."""


class Workforce:
    """Does tasks: in this process if there is one worker, else in as many processes."""

    def __init__(self, job: Job, scratch: Path, *, processes: int = 0) -> None:
        """Take the job, which is written already; processes start with the first tasks.

        Args:
            job: The job.
            scratch: Local folder for what tasks write on their way; whoever made it removes it.
            processes: How many tasks are done at once; 0: as many as the job is cut for.
        """
        self._job = job
        self._scratch = scratch
        self._workers: list[_Worker | None] = [None] * (processes or job.num_workers)
        self._lock = threading.Lock()
        self._is_dismissed = False

    @contextmanager
    def hired(self) -> Iterator["Workforce"]:
        """Within the block workers may run; none is left after it."""
        try:
            yield self
        finally:
            self._dismiss()
            release()

    def run(self, task: str, numbers: Iterable[int], advance: _Advance) -> None:
        """Do the tasks ``numbers`` of one kind.

        A task whose worker is killed is done again by another, three times in all.

        Args:
            task: ``map`` or ``reduce``.
            numbers: Which.
            advance: Told now and then how many bytes are done.

        Raises:
            PlscError: What the first task that failed raised; the others are given up.
            WorkerLostError: If a task's workers were killed three times, or one ended by itself.
        """
        waiting = deque(numbers)
        if len(self._workers) == 1 or len(waiting) <= 1:
            for number in waiting:
                do(self._job, task, number, advance)
            return
        places = range(min(len(self._workers), len(waiting)))
        with ThreadPoolExecutor(len(places)) as pool:
            served = [pool.submit(self._serve, n, task, waiting, advance) for n in places]
            try:
                done, _ = wait(served, return_when=FIRST_EXCEPTION)
                for one in done:
                    one.result()
            except BaseException:
                self._dismiss()  # ends what the other threads wait for
                raise

    def _serve(self, place: int, task: str, waiting: deque[int], advance: _Advance) -> None:
        """Let one worker do tasks while there are any (a thread's work)."""
        while not self._is_dismissed:
            try:
                number = waiting.popleft()
            except IndexError:
                return
            self._do(place, task, number, advance)

    def _do(self, place: int, task: str, number: int, advance: _Advance) -> None:
        for attempt in range(1, _TRIES + 1):
            worker = self._workers[place] or self._hire(place)
            try:
                worker.do(task, number, advance)
            except WorkerLostError as lost:
                self._workers[place] = None
                is_final = attempt == _TRIES or not worker.was_killed_by_others
                worker.end()
                if is_final:
                    raise
                log.warning("%s; another one does it again (try %d)", lost, attempt + 1)
            else:
                return

    def _hire(self, place: int) -> "_Worker":
        with self._lock:
            if self._is_dismissed:
                raise WorkerLostError("the other tasks were given up")
            worker = self._workers[place] = _Worker(self._job, self._scratch)
        return worker

    def _dismiss(self) -> None:
        with self._lock:
            self._is_dismissed = True
            workers = [worker for worker in self._workers if worker]
        for worker in workers:
            worker.ask_to_end()
        for worker in workers:
            worker.end()


class _Worker:
    """One worker process."""

    def __init__(self, job: Job, scratch: Path) -> None:
        self._is_ended = False
        command = [sys.executable, "-m", "plsc.preprocess.shuffle.worker", job.uri]
        self._process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT | os.environ | {"TMPDIR": str(scratch)},
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
        how = f"ended with code {code}; what it said about it stands above"
        if code < 0:
            how = (
                f"was killed by {signal.Signals(-code).name}: if it was not you, memory ran out"
                " (dmesg tells): lower preprocess.memory_mib or preprocess.workers, and run"
                " preprocess again"
            )
        raise WorkerLostError(f"in {task} task {number}, a worker (pid {self._process.pid}) {how}")

    def ask_to_end(self) -> None:
        """Let the process remove what it is just writing, and end."""
        self._is_ended = True
        self._process.terminate()

    def end(self) -> None:
        """See that the process has ended."""
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
