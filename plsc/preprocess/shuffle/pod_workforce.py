"""The workforce of a cluster: each kind of task is done by the pods of an Indexed Job."""

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from plsc import storage
from plsc.cluster.indexed_job import SharedWork, run_shared
from plsc.conf.schema import PipelineConfig, PodsConfig
from plsc.errors import StorageError
from plsc.preprocess.shuffle.job import Job
from plsc.preprocess.shuffle.planning import processes_per_pod
from plsc.preprocess.shuffle.workforce import ENVIRONMENT

__all__ = ["PodWorkforce"]

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 5.0
_LOOKING_SHARE = 0.1
"""Part of the time that looking may take: a large job's folder is long."""

_BESIDES_MIB = 192
"""What a process has besides its images: 80 MiB, and room for a library's moods."""

_Advance: TypeAlias = Callable[[int], None]


class PodWorkforce:
    """Does tasks in ``preprocess.pods.count`` pods, fewer if the input has fewer items."""

    def __init__(self, config: PipelineConfig, job: Job) -> None:
        """Take the job, which is written already."""
        self._config = config
        self._job = job
        self._processes = processes_per_pod(config.preprocess)

    def run(self, task: str, numbers: Mapping[int, int], advance: _Advance) -> None:
        """Do the tasks ``numbers`` of one kind; a job that already does them is gone on with.

        Args:
            task: ``map`` or ``reduce``.
            numbers: Which, and how many bytes each is, about.
            advance: Told now and then how many bytes are done.

        Raises:
            PlscError: What a pod raised; then the whole job is given up.
            JobFailedError: If it fails for another reason, such as too little memory.
            ClusterError: If the cluster cannot be asked.
        """
        if not numbers:
            return
        seen = _Seen(self._job, task, numbers, advance)
        run_shared(self._work(task), on_tick=seen.look)
        seen.look(at_once=True)

    def _work(self, task: str) -> SharedWork:
        config, job = self._config, self._job
        pods = self._sized(config.preprocess.pods)
        count = min(pods.count, job.num_items)  # not of what is left: the same job again is adopted
        log.info("%s: an Indexed Job of %d pods, %d at once in each", task, count, self._processes)
        return SharedWork(
            step="preprocess",
            part=task,
            run_id=config.run_id,
            attempt=job.attempt,
            pods=pods,
            count=count,
            command=[
                *("python", "-m", "plsc.preprocess.shuffle.pod", job.uri, "--task", task),
                *("--pods", str(count), "--processes", str(self._processes)),
            ],
            work_uri=job.work_uri,
            report_uri=storage.join(
                config.store_uri, "runs", config.run_id, "preprocess", f"{task}-pods.txt"
            ),
            environment=ENVIRONMENT,
        )

    def _sized(self, pods: PodsConfig) -> PodsConfig:
        """Return ``pods`` with what their processes need, where nothing is asked for."""
        mib = self._processes * (self._config.preprocess.memory_mib + _BESIDES_MIB) + _BESIDES_MIB
        return replace(pods, cpu=pods.cpu or str(self._processes), memory=pods.memory or f"{mib}Mi")


class _Seen:
    """Sees in the store which tasks are done, and tells of it."""

    def __init__(self, job: Job, task: str, numbers: Mapping[int, int], advance: _Advance) -> None:
        self._prefix = job.map_uri(0, "") if task == "map" else job.reduce_uri(0, "")
        self._prefix = self._prefix.rpartition("/")[0] + "/"
        self._task = task
        self._left = dict(numbers)
        self._total = len(numbers)
        self._advance = advance
        self._next = time.monotonic() + _LOOK_EVERY_S

    def look(self, *, at_once: bool = False) -> None:
        """Look, if the last time is long enough ago."""
        start = time.monotonic()
        if start < self._next and not at_once:
            return
        try:
            done = self._done()
        except StorageError as error:
            log.warning("%s: how far it is cannot be seen: %s", self._task, error)
            done = set()
        if done:
            self._advance(sum(self._left.pop(number) for number in done))
            count = self._total - len(self._left)
            log.info("%s: %d of %d items are done", self._task, count, self._total)
        took_s = time.monotonic() - start
        self._next = start + took_s + max(_LOOK_EVERY_S, took_s / _LOOKING_SHARE)

    def _done(self) -> set[int]:
        names = (info.uri.rpartition("/")[2] for info in storage.list_objects(self._prefix))
        found = (re.fullmatch(r"(\d+)\.json", name) for name in names)
        return {int(match[1]) for match in found if match} & self._left.keys()
