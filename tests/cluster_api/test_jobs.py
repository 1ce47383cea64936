"""``run_to_end`` through every state that a cluster can bring a job into."""

import time
from pathlib import Path
from typing import Any

import pytest

from plsc.cluster.job_request import JobRequest
from plsc.cluster.refusals import ForbiddenError
from plsc.errors import ClusterError
from tests.cluster_api.conftest import OWNER
from tests.cluster_api.playing import Start, failed, make_index, make_pods
from tests.kubernetes_api import KubernetesApi


def test_a_training_runs_to_its_end_and_its_master_is_heard(
    cluster: KubernetesApi, running: Start, training: JobRequest, caplog: Any
) -> None:
    run = running(training)
    job = make_pods(cluster)
    assert job["metadata"]["ownerReferences"] == [OWNER]
    assert job["metadata"]["labels"]["plsc/run-id"] == training.run_id
    assert cluster.store.get("pods", "worker-0")["metadata"]["labels"]["plsc/step"] == "train"
    cluster.until(lambda: "waiting: 0 of 2 pods run" in caplog.text)
    for name in ("master-0", "worker-0"):
        cluster.run_pod(name)
    cluster.say("worker-0", "not passed on")
    cluster.say("master-0", "step 1", "step 2")
    cluster.until(lambda: run.ticks)
    cluster.end_pod("master-0")
    cluster.condition("pytorchjobs", training.name, "Running", status="False")
    cluster.condition("pytorchjobs", training.name, "Succeeded")
    assert run.end() is None
    assert run.lines == ["step 1", "step 2"]
    assert f"created PyTorchJob {training.name}, 2 pods" in caplog.text
    assert cluster.store.find("pytorchjobs"), "it stays until its time to live is over"


def test_conditions_that_no_longer_hold_say_nothing(
    cluster: KubernetesApi, running: Start, mapping: JobRequest
) -> None:
    run = running(mapping)
    cluster.one("jobs")
    cluster.condition("jobs", mapping.name, "Failed", status="False", reason="Old")
    cluster.condition("jobs", mapping.name, "SuccessCriteriaMet")
    time.sleep(0.2)
    assert run.error is None
    cluster.condition("jobs", mapping.name, "Complete")
    assert run.end() is None


def test_a_failed_index_is_named_with_its_last_lines(
    cluster: KubernetesApi, running: Start, mapping: JobRequest
) -> None:
    run = running(mapping)
    make_index(cluster, "map-0", 0)
    make_index(cluster, "map-1", 1)
    for name in ("map-0", "map-1"):
        cluster.run_pod(name)
    cluster.end_pod("map-0")
    cluster.say("map-1", *(f"line {n}" for n in range(250)))
    cluster.end_pod("map-1", 3)
    cluster.event("map-1", "BackOff", "Back-off restarting failed container")
    more = {"reason": "MaxFailedIndexesExceeded", "message": "too many"}
    cluster.condition("jobs", mapping.name, "Failed", **more)
    error = failed(run)
    assert f"Job {mapping.name} failed: MaxFailedIndexesExceeded: too many" in str(error)
    assert "map-1 (index 1), container pytorch: exit code 3" in str(error)
    assert str(error).endswith("    line 249")
    assert [one for one in str(error).splitlines() if one.startswith("    line ")] == [
        f"    line {n}" for n in range(220, 250)
    ]
    assert error.has_started
    report = Path(mapping.report_uri).read_text()
    assert "line 50\n" in report
    assert "line 49\n" not in report
    assert "event" in report
    assert "== pod map-0" not in report
    assert str(mapping.report_uri) in str(error)
    assert cluster.store.find("jobs"), "a failed job stays for whoever looks into it"


def test_the_index_that_was_given_up_is_blamed_and_not_one_that_failed_and_did_better(
    cluster: KubernetesApi, running: Start, mapping: JobRequest
) -> None:
    run = running(mapping)
    for name, index in {"map-0": 0, "map-1": 1}.items():
        make_index(cluster, name, index)
        cluster.run_pod(name)
        cluster.end_pod(name, 75)
    cluster.update("jobs", mapping.name, lambda job: job["status"].update(failedIndexes="1,3-4"))
    cluster.condition("jobs", mapping.name, "Failed", reason="MaxFailedIndexesExceeded")
    error = failed(run)
    assert error.index == "1"
    assert "map-1 (index 1), container pytorch: exit code 75" in str(error)


def test_who_failed_first_is_blamed_and_not_those_who_were_stopped(
    cluster: KubernetesApi, running: Start, training: JobRequest
) -> None:
    run = running(training)
    make_pods(cluster)
    for name in ("master-0", "worker-0"):
        cluster.run_pod(name)
    cluster.end_pod("master-0", 143)
    cluster.say("worker-0", "Traceback: the reason")
    cluster.end_pod("worker-0", 1)
    cluster.condition("pytorchjobs", training.name, "Failed", reason="PyTorchJobFailed")
    error = failed(run)
    assert "worker-0, container pytorch: exit code 1" in str(error)
    assert str(error).endswith("last lines of worker-0:\n    Traceback: the reason")
    assert not cluster.store.find("pytorchjobs"), "its pods would be started again and again"
    assert not cluster.store.find("pods")


def test_a_job_that_failed_with_one_container_out_of_memory_says_so(
    cluster: KubernetesApi, running: Start, training: JobRequest
) -> None:
    run = running(training)
    make_pods(cluster)
    for name in ("master-0", "worker-0"):
        cluster.run_pod(name)
    cluster.end_pod("master-0", 1)
    cluster.end_pod("worker-0", 137, "OOMKilled")
    cluster.condition("pytorchjobs", training.name, "Failed")
    said = str(failed(run))
    assert "worker-0, container pytorch: OOMKilled (exit code 137, limit 8Gi)" in said
    assert "give its pods more memory: train.pods.memory (now 8Gi)" in said


def test_an_evicted_pod_is_named_and_is_no_failure_by_itself(
    cluster: KubernetesApi, running: Start, mapping: JobRequest, caplog: Any
) -> None:
    run = running(mapping)
    make_index(cluster, "map-0", 0)
    cluster.run_pod("map-0")
    cluster.evict("map-0")
    cluster.until(lambda: "map-0: taken away by the cluster: The node was low" in caplog.text)
    assert run.error is None
    cluster.condition("jobs", mapping.name, "Complete")
    assert run.end() is None


def test_a_job_that_somebody_deleted_is_said_to_be(
    cluster: KubernetesApi, running: Start, training: JobRequest, caplog: Any
) -> None:
    run = running(training)
    make_pods(cluster)
    cluster.run_pod("master-0")
    cluster.until(lambda: "1 of 2 pods run" in caplog.text)
    cluster.store.delete("pytorchjobs", training.name)
    error = failed(run)
    assert "was deleted by somebody" in str(error)
    assert error.has_started


def test_a_server_away_for_a_while_is_told_once_and_nothing_is_lost(
    cluster: KubernetesApi, running: Start, training: JobRequest, caplog: Any
) -> None:
    run = running(training)
    make_pods(cluster)
    cluster.run_pod("master-0")
    cluster.say("master-0", "before")
    cluster.until(lambda: run.lines)
    cluster.is_away = True
    cluster.drop_streams()
    cluster.say("master-0", "meanwhile")
    time.sleep(2.0)
    cluster.is_away = False
    cluster.end_pod("master-0")
    cluster.condition("pytorchjobs", training.name, "Succeeded")
    assert run.end() is None
    assert run.lines == ["before", "meanwhile"]
    assert caplog.text.count("trying again for a while") == 1
    assert caplog.text.count("the Kubernetes API answers again") == 1


def test_without_the_right_to_read_events_it_goes_on_without_them(
    cluster: KubernetesApi, running: Start, training: JobRequest, caplog: Any
) -> None:
    cluster.allows = lambda call: call.resource != "events"
    run = running(training)
    make_pods(cluster)
    cluster.until(lambda: "going on without events" in caplog.text)
    cluster.condition("pytorchjobs", training.name, "Succeeded")
    assert run.end() is None
    assert caplog.text.count("going on without events") == 1


def test_without_the_right_to_read_logs_it_says_so_and_goes_on_without_them(
    cluster: KubernetesApi, running: Start, training: JobRequest, caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("plsc.cluster.patience._DOUBT_S", 0.1)
    cluster.allows = lambda call: call.subresource != "log"
    run = running(training)
    make_pods(cluster)
    cluster.run_pod("master-0")
    cluster.until(lambda: "going on without the log of PyTorchJob" in caplog.text)
    cluster.condition("pytorchjobs", training.name, "Succeeded")
    assert run.end() is None
    assert caplog.text.count('cannot get resource "pods/log"') == 1


def test_a_job_whose_state_cannot_be_read_is_not_waited_for_without_end(
    cluster: KubernetesApi, running: Start, mapping: JobRequest
) -> None:
    run = running(mapping)
    cluster.one("jobs")
    cluster.update("jobs", mapping.name, lambda job: job["status"].update(completedIndexes="all"))
    error = run.end()
    assert isinstance(error, ClusterError)
    assert f"Job {mapping.name} cannot be followed: ValueError" in str(error)
    assert cluster.store.find("jobs")


@pytest.mark.parametrize("resource", ["pytorchjobs", "pods"])
def test_without_another_right_it_ends_and_names_the_right(
    cluster: KubernetesApi, running: Start, training: JobRequest, resource: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("plsc.cluster.patience._DOUBT_S", 0.1)
    cluster.allows = lambda call: call.resource != resource
    error = running(training).end()
    assert isinstance(error, ForbiddenError)
    assert f'resource "{resource}"' in str(error)


def test_a_cluster_without_the_operator_says_what_to_install(
    cluster: KubernetesApi, running: Start, training: JobRequest
) -> None:
    cluster.missing = {"pytorchjobs"}
    error = running(training).end()
    assert isinstance(error, ClusterError)
    assert "training operator" in str(error)
