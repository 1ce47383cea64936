"""The stage against a stub Kubernetes API server whose jobs run as real processes."""

import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from plsc.cluster import requirement
from plsc.cluster.jobs import JobFailedError
from plsc.preprocess import stage
from plsc.preprocess.shuffle import planning
from plsc.preprocess.stage import run
from tests.indexed_pods import JobController
from tests.kubernetes_api import KubernetesApi
from tests.preprocess.rows import digests_of, good_parts, settings, write_parts

PODS = ("preprocess.pods.count=2", "preprocess.pods.image=registry/plsc-preprocess:1")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    for variable in ("KUBERNETES_SERVICE_HOST", "KFP_POD_NAME", "HOSTNAME"):
        monkeypatch.delenv(variable, raising=False)
    for module in (requirement, stage):  # the connection itself is that of a kubeconfig
        monkeypatch.setattr(module, "is_in_cluster", lambda: True)
    monkeypatch.setattr(planning, "_SMALLEST_ITEM_BYTES", 5_000)
    with KubernetesApi() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path)))
        yield running


@pytest.fixture
def expected(tmp_path_factory, cluster):
    folder = tmp_path_factory.mktemp("expected")
    write_parts(folder / "data", good_parts(num_rows=400))
    return digests_of(run(settings(folder)))


def kill_in_the_middle(folder, exit_signal=signal.SIGKILL):
    """Return what kills the first try of index 1 of map when it has done one of its tasks."""
    victims = []

    def kill(pod):
        if victims or pod.index != 1:
            return
        while not [path for path in folder.rglob("map/?????.json") if int(path.stem) % 2 == 1]:
            time.sleep(0.005)
        pod.process.send_signal(exit_signal)
        victims.append(pod)

    return kill, victims


def jobs_made(cluster):
    """Return the parts for which a job was created, in order."""
    return [job["metadata"]["labels"]["plsc/part"] for job in cluster.store.find("jobs")]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_pod_killed_in_the_middle_is_replaced_and_not_a_byte_differs(
    tmp_path, cluster, expected, caplog, number
):
    caplog.set_level(logging.INFO)
    write_parts(tmp_path / "data", good_parts(num_rows=400))
    kill, victims = kill_in_the_middle(tmp_path, number)
    controller = JobController(cluster, kill)
    assert digests_of(run(settings(tmp_path, *PODS))) == expected
    assert [pod.exit_code for pod in victims] == [128 + number]
    assert sorted(jobs_made(cluster)) == ["map", "reduce"]
    (again,) = [pod for pod in controller.pods if pod.index == 1 and pod.attempt == 1]
    assert "map, index 1: " in again.output
    (job,) = [job for job in cluster.store.find("jobs") if "-map-" in job["metadata"]["name"]]
    assert job["spec"]["backoffLimitPerIndex"] == 3
    assert job["metadata"]["labels"]["plsc/step"] == "preprocess"


@pytest.mark.slow
def test_a_failed_index_is_named_with_its_last_lines(tmp_path, cluster, caplog):
    write_parts(tmp_path / "data", good_parts(num_rows=400))
    JobController(cluster, lambda pod: pod.kill() if pod.index == 1 else None)
    config = settings(tmp_path, *PODS, "preprocess.pods.max_restarts=0")
    with pytest.raises(JobFailedError, match=r"-1-0\b"):
        run(config)
    report = tmp_path / "store" / "runs" / "run" / "preprocess" / "map-pods.txt"
    assert "137" in report.read_text()


@pytest.mark.slow
def test_a_step_that_was_killed_finds_its_job_again(tmp_path, cluster, expected):
    write_parts(tmp_path / "data", good_parts(num_rows=400))
    controller = JobController(cluster, lambda pod: pod.process.send_signal(signal.SIGSTOP))
    program = (
        "import sys; from pathlib import Path\n"
        "from plsc.cluster import requirement\n"
        "from plsc.preprocess import stage\n"
        "from plsc.preprocess.shuffle import planning\n"
        "from tests.preprocess.rows import digests_of, settings\n"
        "planning._SMALLEST_ITEM_BYTES = 5_000\n"
        "requirement.is_in_cluster = stage.is_in_cluster = lambda: True\n"
        "print(*digests_of(stage.run(settings(Path(sys.argv[1]), *sys.argv[2:]))))"
    )
    given = {
        "args": [sys.executable, "-c", program, str(tmp_path), *PODS],
        "env": dict(os.environ),
        "stdout": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen(**given) as killed:
        cluster.until(lambda: len(controller.pods) == 2, timeout_s=120)
        killed.kill()
    with subprocess.Popen(**given) as again:
        watched = len(cluster.made("watch", "jobs"))
        cluster.until(lambda: len(cluster.made("watch", "jobs")) > watched, timeout_s=120)
        controller._on_start = lambda pod: None
        for pod in controller.pods:
            pod.process.send_signal(signal.SIGCONT)
        told = again.communicate(timeout=240)[0]
    assert told.split() == expected
    assert len(cluster.made("create", "jobs")) == 2, "one of map and one of reduce"
