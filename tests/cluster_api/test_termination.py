"""SIGTERM, really sent to a process that runs a job: a terminated run, and only a drained pod."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kubernetes_api import KubernetesApi

_SILENCE_S = 60.0  # of a server; a step's pod lives for less than a second after a SIGTERM


@pytest.fixture
def launcher(
    cluster: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> Iterator["subprocess.Popen[str]"]:
    """A process with a job that runs, in a pod of the Workflow ``run-1``."""
    workflow = cluster.put("workflows", {"metadata": {"name": "run-1"}, "spec": {}})
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-1"}
    owner |= {"uid": workflow["metadata"]["uid"]}
    metadata = {"name": "step-1", "ownerReferences": [owner]}
    cluster.put("pods", {"metadata": metadata, "spec": {"containers": []}})
    monkeypatch.setenv("KFP_POD_NAME", "step-1")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.cluster_api.launcher"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": "."},
    )
    try:
        cluster.until(lambda: cluster.made("watch", "jobs") or process.poll() is not None, 60.0)
        cluster.until(lambda: cluster.made("list", "pods") or process.poll() is not None)
        yield process
    finally:
        process.kill()
        process.communicate()


def _ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=_SILENCE_S / 2)
    return process.returncode, said


def _terminate(cluster: KubernetesApi) -> None:
    deadline = {"activeDeadlineSeconds": 0}
    cluster.update("workflows", "run-1", lambda workflow: workflow["spec"].update(deadline))


def test_a_run_that_is_terminated_takes_its_job_with_it(
    cluster: KubernetesApi, launcher: Any
) -> None:
    _terminate(cluster)
    before = len(cluster.calls)
    code, said = _ended(launcher)
    assert code == 143, said
    assert not cluster.store.find("jobs")
    verbs = [(one.verb, one.resource) for one in cluster.calls[before:]]
    assert [one for one in verbs if one[0] in {"get", "delete"}] == [
        ("get", "workflows"),
        ("delete", "jobs"),
    ]
    assert "the run is being terminated: deleted Job plsc-preprocess-map-run1-" in said


def test_a_pod_that_goes_alone_leaves_its_job_to_be_adopted(
    cluster: KubernetesApi, launcher: Any
) -> None:
    code, said = _ended(launcher)
    assert code == 143, said
    assert cluster.store.find("jobs")
    assert not cluster.made("delete", "jobs")
    assert "goes on, for the next try to adopt" in said


@pytest.mark.parametrize("verb", ["get", "delete"])
def test_a_slow_server_does_not_hold_the_process_up(
    cluster: KubernetesApi, launcher: Any, verb: str
) -> None:
    _terminate(cluster)
    cluster.fail(verb=verb, delay_s=_SILENCE_S, times=5)
    code, said = _ended(launcher)
    assert code == 143, said
    assert "is left as it is" in said


def test_a_server_that_is_away_does_not_hold_the_process_up(
    cluster: KubernetesApi, launcher: Any
) -> None:
    cluster.is_away = True
    cluster.drop_streams()
    code, said = _ended(launcher)
    assert code == 143, said


def test_a_signal_while_the_server_is_waited_for_ends_the_process_too(
    cluster: KubernetesApi, launcher: Any
) -> None:
    cluster.fail(503, verb="list", resource="pods", times=1000)
    time.sleep(2.5)  # the process is within its pauses
    _terminate(cluster)
    code, said = _ended(launcher)
    assert code == 143, said
    assert not cluster.store.find("jobs")
