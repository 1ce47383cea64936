"""When ``run_to_end`` gives a job up that has not failed by itself, and when it does not yet."""

import time
from dataclasses import replace
from typing import Any

import pytest

from plsc.cluster.job_request import JobRequest
from tests.cluster_api.playing import Start, failed, make_index, make_pods
from tests.kubernetes_api import KubernetesApi


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_can_never_be_had_ends_it_at_once(
    cluster: KubernetesApi, running: Start, training: JobRequest, reason: str
) -> None:
    run = running(training)
    make_pods(cluster)
    cluster.wait_pod("worker-0", reason, "no such thing")
    error = failed(run)
    assert f"{reason} (image worker:1): no such thing" in str(error)
    assert "train.pods.image" in str(error)
    assert not error.has_started
    assert not cluster.store.find("pytorchjobs"), "what is given up is deleted"
    assert not cluster.store.find("pods")


@pytest.mark.parametrize("reason", ["ErrImagePull", "CreateContainerConfigError"])
def test_what_cannot_start_is_waited_for_and_then_given_up(
    cluster: KubernetesApi, running: Start, training: JobRequest, reason: str
) -> None:
    pods = replace(training.pods, image_timeout_s=0.6)
    run = running(replace(training, pods=pods))
    make_pods(cluster)
    cluster.wait_pod("worker-0", reason, "secret not found")
    time.sleep(0.3)
    assert run.error is None
    if reason == "ErrImagePull":
        cluster.wait_pod("worker-0", "ImagePullBackOff", "secret not found")
    error = failed(run)
    assert "for 0.6 s (train.pods.image_timeout_s)" in str(error)
    assert "secret not found" in str(error)


def test_an_image_that_comes_in_the_end_is_no_failure(
    cluster: KubernetesApi, running: Start, training: JobRequest
) -> None:
    pods = replace(training.pods, image_timeout_s=1.0)
    run = running(replace(training, pods=pods))
    make_pods(cluster)
    cluster.wait_pod("worker-0", "ErrImagePull", "the registry is busy")
    time.sleep(0.3)
    cluster.run_pod("worker-0")
    time.sleep(1.0)
    assert run.error is None
    (job,) = cluster.store.find("pytorchjobs")
    cluster.condition("pytorchjobs", job["metadata"]["name"], "Succeeded")
    assert run.end() is None


def test_a_pod_without_a_node_is_given_up_with_the_scheduler_s_words(
    cluster: KubernetesApi, running: Start, training: JobRequest, caplog: Any
) -> None:
    pods = replace(training.pods, schedule_timeout_s=0.4)
    run = running(replace(training, pods=pods))
    make_pods(cluster)
    cluster.run_pod("master-0")
    cluster.unschedulable("worker-0", "0/1 nodes are available: 1 Insufficient cpu.")
    error = failed(run)
    assert "pod worker-0 found no node for 0.4 s (train.pods.schedule_timeout_s)" in str(error)
    assert "1 Insufficient cpu." in str(error)
    told = "waiting: 1 of 2 pods run; worker-0: Unschedulable: 0/1 nodes are available"
    assert caplog.text.count(told) == 1, "told once, not at every look"


def test_pods_that_nobody_makes_are_given_up_with_what_the_cluster_noted(
    cluster: KubernetesApi, running: Start, mapping: JobRequest
) -> None:
    pods = replace(mapping.pods, schedule_timeout_s=0.4)
    mapping = replace(mapping, pods=pods)
    run = running(mapping)
    cluster.one("jobs")
    cluster.event(mapping.name, "FailedCreate", "exceeded quota: tiny")
    error = failed(run)
    assert "2 of 2 pods were not made within 0.4 s" in str(error)
    assert "FailedCreate: exceeded quota: tiny" in str(error)


def test_indexes_without_a_node_wait_for_the_place_of_those_that_run(
    cluster: KubernetesApi, running: Start, mapping: JobRequest
) -> None:
    pods = replace(mapping.pods, schedule_timeout_s=0.4)
    run = running(replace(mapping, pods=pods))
    make_index(cluster, "map-0", 0)
    make_index(cluster, "map-1", 1)
    cluster.run_pod("map-0")
    cluster.unschedulable("map-1", "0/1 nodes are available: 1 Insufficient cpu.")
    time.sleep(1.0)
    assert run.error is None
    cluster.end_pod("map-0")
    assert "pod map-1 found no node for 0.4 s" in str(failed(run)), "nothing runs any more"


def test_indexes_that_are_done_do_not_count_as_missing_when_their_pods_are_gone(
    cluster: KubernetesApi, running: Start, mapping: JobRequest
) -> None:
    pods = replace(mapping.pods, schedule_timeout_s=0.4)
    mapping = replace(mapping, pods=pods)
    run = running(mapping)
    cluster.one("jobs")
    cluster.update(
        "jobs", mapping.name, lambda job: job["status"].update(completedIndexes="0-1", succeeded=2)
    )
    time.sleep(1.0)
    assert run.error is None
    cluster.condition("jobs", mapping.name, "Complete")
    assert run.end() is None


def test_an_index_that_is_done_counts_beside_one_that_runs(
    cluster: KubernetesApi, running: Start, mapping: JobRequest
) -> None:
    pods = replace(mapping.pods, schedule_timeout_s=0.4)
    mapping = replace(mapping, pods=pods)
    run = running(mapping)
    make_index(cluster, "map-1", 1)
    status = {"completedIndexes": "0", "succeeded": 1, "active": 1}
    cluster.update("jobs", mapping.name, lambda job: job["status"].update(status))
    time.sleep(1.0)
    assert run.error is None
    cluster.condition("jobs", mapping.name, "Complete")
    assert run.end() is None


def test_a_suspended_job_waits_in_its_queue_for_as_long_as_it_takes(
    cluster: KubernetesApi, running: Start, mapping: JobRequest, caplog: Any
) -> None:
    pods = replace(mapping.pods, schedule_timeout_s=0.5, queue="team")
    mapping = replace(mapping, pods=pods)
    run = running(mapping)
    labels = cluster.one("jobs")["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "team"
    cluster.condition("jobs", mapping.name, "Suspended")
    time.sleep(1.0)
    assert run.error is None
    assert "it waits in its queue" in caplog.text
    cluster.condition("jobs", mapping.name, "Complete")
    assert run.end() is None


def test_a_container_out_of_memory_is_started_again_once_and_then_given_up(
    cluster: KubernetesApi, running: Start, training: JobRequest
) -> None:
    run = running(training)
    make_pods(cluster)
    cluster.run_pod("worker-0")
    cluster.end_pod("worker-0", 137, "OOMKilled", restarts=True)
    cluster.run_pod("worker-0")
    time.sleep(0.3)
    assert run.error is None
    cluster.say("worker-0", "loading")
    cluster.end_pod("worker-0", 137, "OOMKilled", restarts=True)
    error = failed(run)
    assert "OOMKilled (exit code 137, limit 8Gi), 2 times" in str(error)
    assert "train.pods.memory (now 8Gi)" in str(error)
    assert not cluster.store.find("pytorchjobs")


def test_an_index_out_of_memory_counts_over_its_pods(
    cluster: KubernetesApi, running: Start, mapping: JobRequest
) -> None:
    run = running(mapping)
    make_index(cluster, "map-0", 0)
    make_index(cluster, "map-1", 1)
    for name in ("map-0", "map-1"):
        cluster.run_pod(name)
        cluster.end_pod(name, 137, "OOMKilled")
    time.sleep(0.3)
    assert run.error is None, "two indexes, once each"
    make_index(cluster, "map-0-again", 0)
    cluster.run_pod("map-0-again")
    cluster.end_pod("map-0-again", 137, "OOMKilled")
    assert "preprocess.pods.memory" in str(failed(run))


def test_a_volume_that_cannot_be_mounted_is_given_up_with_the_event(
    cluster: KubernetesApi, running: Start, training: JobRequest
) -> None:
    pods = replace(training.pods, image_timeout_s=0.3)
    run = running(replace(training, pods=pods))
    make_pods(cluster)
    cluster.wait_pod("worker-0", "ContainerCreating")
    cluster.event("worker-0", "FailedMount", 'configmap "ca" not found')
    assert 'FailedMount: configmap "ca" not found' in str(failed(run))
