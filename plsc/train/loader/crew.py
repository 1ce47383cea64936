"""Who makes the batches: worker processes, or a thread of this one."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from plsc.errors import TrainError
from plsc.train.loader.assembly import Assembler, Assembly, Plan
from plsc.train.loader.ring import Ring

__all__ = ["Crew", "ProcessCrew", "ThreadCrew"]

_GRACE_S = 5.0


class Crew(Protocol):
    """Makes the batches that it is given, in the order of the steps, into the slots of a ring.

    A context manager: whoever works is gone behind the block.
    """

    ring: Ring

    def submit(self, step: int, slot: int) -> None:
        """Have the batch of ``step`` made in ``slot``."""

    def result(self, step: int) -> Assembly:
        """Return when the batch of ``step``, which was submitted, is made."""

    def forget_before(self, window: int) -> None:
        """Have everyone, as soon as what was submitted is made, unmap what came before."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class ThreadCrew:
    """A thread of this process."""

    def __init__(self, plan: Plan) -> None:
        self.ring, descriptor = Ring.make(
            slots=plan.slots, batch_size=plan.batch_size, image_size=plan.image_size
        )
        os.close(descriptor)
        self._assembler = Assembler(plan)
        self._made: dict[int, Future[Assembly]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader")

    def submit(self, step: int, slot: int) -> None:
        """Have the batch of ``step`` made in ``slot``."""
        images, labels = self.ring.images[slot], self.ring.labels[slot]
        self._made[step] = self._thread.submit(self._assembler.assemble, step, images, labels)

    def result(self, step: int) -> Assembly:
        """Return when the batch of ``step``, which was submitted, is made.

        Raises:
            ShardError: If the file of a shard is damaged.
        """
        return self._made.pop(step).result()

    def forget_before(self, window: int) -> None:
        """Have the thread unmap what came before, as soon as what was submitted is made."""
        self._thread.submit(self._assembler.forget_before, window)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)


class ProcessCrew:
    """Processes that know nothing of torch, nor of the program that this one runs."""

    def __init__(self, plan: Plan, workers: int) -> None:
        """Start ``workers`` processes, at least one."""
        self.ring, descriptor = Ring.make(
            slots=plan.slots, batch_size=plan.batch_size, image_size=plan.image_size
        )
        self._assemblies: dict[int, Assembly] = {}
        command = [sys.executable, "-P", "-m", "plsc.train.loader.worker"]
        # The same modules as here, whatever the working directory is.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._workers = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[descriptor],
                env=environment,
            )
            for _ in range(workers)
        ]
        os.close(descriptor)
        for number in range(workers):
            self._send(number, f"{descriptor}\n{plan.model_dump_json()}\n")

    def submit(self, step: int, slot: int) -> None:
        """Have the batch of ``step`` made in ``slot``.

        Raises:
            TrainError: If the worker is gone.
        """
        self._send(step % len(self._workers), json.dumps(["make", step, slot]) + "\n")

    def result(self, step: int) -> Assembly:
        """Return when the batch of ``step``, which was submitted, is made.

        Raises:
            TrainError: If the worker is gone.
        """
        number = step % len(self._workers)
        answers = self._workers[number].stdout
        assert answers is not None
        while step not in self._assemblies:
            line = answers.readline()
            if not line.endswith(b"\n"):
                raise self._gone(number)
            made = Assembly.model_validate_json(line)
            self._assemblies[made.step] = made
        return self._assemblies.pop(step)

    def forget_before(self, window: int) -> None:
        """Have all workers unmap what came before, as soon as what was submitted is made.

        A worker that only makes every n-th batch may otherwise keep a window for too long.

        Raises:
            TrainError: If a worker is gone.
        """
        for number in range(len(self._workers)):
            self._send(number, json.dumps(["forget", window]) + "\n")

    def _send(self, number: int, text: str) -> None:
        jobs = self._workers[number].stdin
        assert jobs is not None
        try:
            jobs.write(text.encode())
            jobs.flush()
        except BrokenPipeError as error:
            raise self._gone(number) from error

    def _gone(self, number: int) -> TrainError:
        worker = self._workers[number]
        status = worker.wait(_GRACE_S)
        how = f"ended with code {status}: what it said about it stands above"
        if status < 0:
            how = (
                f"was killed by {signal.Signals(-status).name}: if it was not you, look for the"
                " kernel's word on memory (dmesg), or lower train.loader.workers"
            )
        return TrainError(
            f"loader worker {number} of {len(self._workers)} (pid {worker.pid}) {how}; resume from"
            " the last checkpoint"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            assert worker.stdin is not None
            with suppress(BrokenPipeError):
                worker.stdin.close()
        for worker in self._workers:
            try:
                worker.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()
