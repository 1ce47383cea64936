"""A stub cluster, this process connected to it, and a job to run on it."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plsc.cluster.api import Api
from plsc.cluster.job_request import JobRequest
from plsc.cluster.jobs import run_to_end
from plsc.cluster.kinds import JOB, PYTORCHJOB
from plsc.cluster.place import Place
from plsc.conf.schema import PodsConfig
from tests.kubernetes_api import KubernetesApi

OWNER = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Workflow",
    "name": "run-1",
    "uid": "w-1",
    "blockOwnerDeletion": False,
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    for variable in ("KUBERNETES_SERVICE_HOST", "KFP_POD_NAME", "HOSTNAME"):
        monkeypatch.delenv(variable, raising=False)
    with KubernetesApi() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path)))
        yield running


@pytest.fixture
def api(cluster: KubernetesApi) -> Iterator[Api]:
    with Api.connect() as connected:
        yield connected


@pytest.fixture
def place(cluster: KubernetesApi) -> Place:
    workflow = {"metadata": {"name": "run-1", "uid": "w-1"}, "spec": {}}
    cluster.put("workflows", workflow)
    return Place("step-1", "plsc", OWNER)


def _template(restart_policy: str) -> dict[str, Any]:
    container = {
        "name": "pytorch",
        "image": "worker:1",
        "resources": {"limits": {"memory": "8Gi"}},
    }
    return {"spec": {"containers": [container], "restartPolicy": restart_policy}}


@pytest.fixture
def training(tmp_path: Path) -> JobRequest:
    """A PyTorchJob of two pods."""
    replica = {"replicas": 1, "restartPolicy": "OnFailure", "template": _template("OnFailure")}
    return JobRequest(
        kind=PYTORCHJOB,
        manifest={"spec": {"pytorchReplicaSpecs": {"Master": replica, "Worker": replica}}},
        step="train",
        part="",
        run_id="0a1b2c3d-run",
        pods=PodsConfig(
            count=2, image="worker:1", schedule_timeout_s=60.0, image_timeout_s=60.0, grace_s=1
        ),
        container="pytorch",
        speaker={"training.kubeflow.org/replica-type": "master"},
        report_uri=str(tmp_path / "failed-pods.txt"),
    )


@pytest.fixture
def mapping(training: JobRequest) -> JobRequest:
    """An Indexed Job of two pods."""
    spec = {"completionMode": "Indexed", "completions": 2, "parallelism": 2}
    return replace(
        training,
        kind=JOB,
        manifest={"spec": {**spec, "template": _template("Never")}},
        step="preprocess",
        part="map",
        speaker={},
    )


class Running:
    """``run_to_end`` in a thread of its own, so that the test can play the cluster."""

    def __init__(self, api: Api, place: Place, request: JobRequest) -> None:
        self.lines: list[str] = []
        self.ticks = 0
        self.error: BaseException | None = None
        self._arguments = (api, place, request)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            run_to_end(*self._arguments, on_line=self.lines.append, on_tick=self._tick)
        except BaseException as error:  # noqa: BLE001  the test looks at it
            self.error = error

    def _tick(self) -> None:
        self.ticks += 1

    def end(self, timeout_s: float = 20.0) -> BaseException | None:
        """Wait for the end and return what was raised."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "run_to_end still runs"
        return self.error


@pytest.fixture
def running(
    api: Api, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[JobRequest], Running]:
    """Start ``run_to_end``, impatient."""
    caplog.set_level(logging.INFO, logger="plsc")
    for name, value in {
        "plsc.cluster.pod_watch._WAITING_S": 0.05,
        "plsc.cluster.pod_watch._RUNNING_S": 0.05,
        "plsc.cluster.jobs._PULSE_S": 0.02,
        "plsc.cluster.log_following._LOOK_S": 0.05,
        "plsc.cluster.adoption._LOOK_S": 0.05,
    }.items():
        monkeypatch.setattr(name, value)
    return lambda request: Running(api, place, request)
