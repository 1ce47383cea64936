"""The pods of an Indexed Job as processes of this machine: what kubelet would start, with retries.

It knows what the template's job asks for: ``backoffLimitPerIndex``, ``maxFailedIndexes: 0`` and the
exit codes of ``FailIndex``.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes_api import KubernetesApi

__all__ = ["IndexFailedError", "JobController", "PodProcess", "pretend_cluster", "run_indexes"]


class IndexFailedError(Exception):
    """An index was given up."""

    def __init__(self, pod: "PodProcess") -> None:
        super().__init__(f"index {pod.index}: exit code {pod.exit_code}\n{pod.output}")
        self.pod = pod


class PodProcess:
    """One try of one index."""

    def __init__(self, manifest: dict[str, Any], index: int, attempt: int) -> None:
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        command = [sys.executable, *container["command"][1:]]
        assert container["command"][0] == "python"
        own = {one["name"]: one["value"] for one in container.get("env", [])}
        self.index, self.attempt = index, attempt
        self.output = ""
        self.process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[1],
            env=os.environ | own | {"JOB_COMPLETION_INDEX": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def exit_code(self) -> int:
        """As a container's: 128 + N for signal N."""
        code = self.process.returncode
        return code if code >= 0 else 128 - code

    def wait(self) -> int:
        self.output = self.process.communicate()[0]
        return self.exit_code

    def kill(self) -> None:
        self.process.kill()


def run_indexes(
    manifest: dict[str, Any],
    *,
    on_start: Callable[[PodProcess], None] = lambda pod: None,
    on_end: Callable[[PodProcess], None] = lambda pod: None,
) -> None:
    """Run all indexes side by side until each has succeeded once.

    Raises:
        IndexFailedError: If one is given up; the others are killed then.
    """
    spec = manifest["spec"]
    rules = spec["podFailurePolicy"]["rules"]
    (final,) = (rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "FailIndex")
    running: dict[int, PodProcess] = {}
    is_over = threading.Event()

    def run(index: int) -> None:
        for attempt in range(spec["backoffLimitPerIndex"] + 1):
            if is_over.is_set():
                return
            pod = running[index] = PodProcess(manifest, index, attempt)
            on_start(pod)
            code = pod.wait()
            on_end(pod)
            if code == 0:
                return
            if code in final:
                break
        is_over.set()
        for other in running.values():
            other.kill()
        raise IndexFailedError(pod)

    with ThreadPoolExecutor(spec["completions"]) as pool:
        futures = [pool.submit(run, index) for index in range(spec["completions"])]
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise errors[0]


def pretend_cluster(
    patch: pytest.MonkeyPatch, **hooks: Callable[[PodProcess], None]
) -> list[dict[str, Any]]:
    """Let stages believe that they run on a cluster; return the manifests of the jobs they start.

    The jobs are run here, without an API server.
    """
    from plsc.cluster import indexed_job

    manifests = []

    def run_to_end(api, place, request, *, on_tick):
        manifests.append(request.manifest)
        try:
            run_indexes(request.manifest, on_end=lambda pod: on_tick(), **hooks)
        except IndexFailedError as error:
            raise indexed_job.JobFailedError(str(error), has_started=True) from error

    patch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    patch.setattr(indexed_job.Api, "connect", lambda: None)
    patch.setattr(indexed_job.Place, "here", lambda api: None)
    patch.setattr(indexed_job, "run_to_end", run_to_end)
    return manifests


class JobController:
    """Job controller and kubelet of a stub cluster: runs the Jobs that are created on it."""

    def __init__(
        self, cluster: KubernetesApi, on_start: Callable[[PodProcess], None] = lambda pod: None
    ) -> None:
        self._cluster = cluster
        self._on_start = on_start
        self.pods: list[PodProcess] = []
        cluster.controllers["jobs"] = self._run

    def _run(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]

        def name_of(pod: PodProcess) -> str:
            return f"{name}-{pod.index}-{pod.attempt}"

        def start(pod: PodProcess) -> None:
            self.pods.append(pod)
            labels = {"batch.kubernetes.io/job-completion-index": str(pod.index)}
            self._cluster.pod(name_of(pod), job, labels)
            self._cluster.run_pod(name_of(pod))
            self._on_start(pod)

        def end(pod: PodProcess) -> None:
            self._cluster.say(name_of(pod), *pod.output.splitlines())
            self._cluster.end_pod(name_of(pod), pod.exit_code)

        try:
            run_indexes(job, on_start=start, on_end=end)
        except IndexFailedError:
            self._cluster.condition(
                "jobs", name, "Failed", reason="MaxFailedIndexesExceeded", message="Job has failed"
            )
        else:
            self._cluster.condition("jobs", name, "Complete")
