"""A job is there once, whatever happened before."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from plsc.cluster import adoption
from plsc.cluster.adoption import make_or_adopt
from plsc.cluster.api import Api
from plsc.cluster.job_request import SPEC_HASH, JobRequest
from plsc.cluster.place import Place
from plsc.errors import ClusterError
from tests.cluster_api.conftest import Running
from tests.kubernetes_api import KubernetesApi

Start = Callable[[JobRequest], Running]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "_LOOK_S", 0.02)


def _uid(job: dict[str, Any]) -> str:
    return str(job["metadata"]["uid"])


def test_a_job_is_made_once_and_adopted_by_the_next_try(
    api: Api, place: Place, training: JobRequest, cluster: KubernetesApi
) -> None:
    made, is_adopted = make_or_adopt(api, place, training)
    assert not is_adopted
    again, is_adopted = make_or_adopt(api, place, training)
    assert is_adopted
    assert _uid(again) == _uid(made)
    assert len(cluster.made("create", "pytorchjobs")) == 1


def test_a_job_that_has_succeeded_is_adopted(
    api: Api, place: Place, training: JobRequest, cluster: KubernetesApi
) -> None:
    make_or_adopt(api, place, training)
    cluster.condition("pytorchjobs", training.name, "Succeeded")
    assert make_or_adopt(api, place, training)[1]


def test_a_job_that_has_failed_is_made_anew_once_its_pods_are_gone(
    api: Api, place: Place, training: JobRequest, cluster: KubernetesApi, caplog: Any
) -> None:
    caplog.set_level("INFO", logger="plsc")
    former, _ = make_or_adopt(api, place, training)
    cluster.pod("slow", former)
    cluster.update("pods", "slow", lambda pod: pod["metadata"].update(finalizers=["kubelet"]))
    cluster.condition("pytorchjobs", training.name, "Failed")

    def let_go() -> None:
        cluster.until(lambda: not cluster.store.find("pytorchjobs"))
        cluster.update("pods", "slow", lambda pod: pod["metadata"].update(finalizers=[]))

    letting = threading.Thread(target=let_go)
    letting.start()
    made, is_adopted = make_or_adopt(api, place, training)
    letting.join()
    assert not is_adopted
    assert _uid(made) != _uid(former)
    assert "removing the former PyTorchJob" in caplog.text
    assert "it has failed" in caplog.text


@pytest.mark.parametrize("deletes", [True, False])
def test_pods_of_a_job_that_somebody_deleted_are_waited_for(
    api: Api,
    place: Place,
    mapping: JobRequest,
    cluster: KubernetesApi,
    deletes: bool,
    caplog: Any,
) -> None:
    caplog.set_level("INFO", logger="plsc")
    former, _ = make_or_adopt(api, place, mapping)
    cluster.pod("done", former, phase="Succeeded")
    cluster.pod("slow", former)
    cluster.update("pods", "slow", lambda pod: pod["metadata"].update(finalizers=["kubelet"]))
    cluster.store.delete("jobs", mapping.name)
    changed = replace(mapping, manifest={"spec": {**mapping.manifest["spec"], "more": 1}})

    def let_go() -> None:
        cluster.until(lambda: ": slow" in caplog.text)
        if deletes:
            cluster.update("pods", "slow", lambda pod: pod["metadata"].update(finalizers=[]))
        else:  # somebody else was faster
            cluster.put("jobs", changed.object(place))

    letting = threading.Thread(target=let_go)
    letting.start()
    _, is_adopted = make_or_adopt(api, place, changed)
    letting.join()
    assert is_adopted != deletes


def test_a_failed_training_with_other_settings_is_removed_and_a_failed_job_stays(
    api: Api, place: Place, training: JobRequest, mapping: JobRequest, cluster: KubernetesApi
) -> None:
    for request, plural in ((training, "pytorchjobs"), (mapping, "jobs")):
        make_or_adopt(api, place, request)
        cluster.condition(plural, request.name, "Failed")
        changed = replace(request, manifest={"spec": {**request.manifest["spec"], "more": 1}})
        make_or_adopt(api, place, changed)
    assert len(cluster.store.find("pytorchjobs")) == 1
    assert len(cluster.store.find("jobs")) == 2


def test_a_job_of_another_run_is_never_removed(
    api: Api, place: Place, training: JobRequest, cluster: KubernetesApi
) -> None:
    make_or_adopt(api, place, training)
    cluster.update(
        "pytorchjobs",
        training.name,
        lambda job: job["metadata"]["labels"].update({"plsc/run-id": "another"}),
    )
    with pytest.raises(ClusterError, match="label plsc/run-id says another"):
        make_or_adopt(api, place, training)
    assert not cluster.made("delete", "pytorchjobs")


def test_pods_that_do_not_go_are_named(
    api: Api,
    place: Place,
    training: JobRequest,
    cluster: KubernetesApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adoption, "_BEYOND_GRACE_S", 0.1)
    training = replace(training, pods=replace(training.pods, grace_s=0))
    former, _ = make_or_adopt(api, place, training)
    cluster.pod("stuck", former)
    cluster.update("pods", "stuck", lambda pod: pod["metadata"].update(finalizers=["kubelet"]))
    cluster.condition("pytorchjobs", training.name, "Failed")
    with pytest.raises(ClusterError, match=r"there is still stuck: its node may be lost"):
        make_or_adopt(api, place, training)


def test_a_job_that_is_being_deleted_is_waited_for(
    api: Api, place: Place, training: JobRequest, cluster: KubernetesApi, running: Start
) -> None:
    former, _ = make_or_adopt(api, place, training)
    name = training.name
    cluster.update(
        "pytorchjobs", name, lambda job: job["metadata"].update(finalizers=["foregroundDeletion"])
    )
    cluster.store.delete("pytorchjobs", name)
    run = running(training)
    time.sleep(0.2)
    assert run.error is None
    cluster.update("pytorchjobs", name, lambda job: job["metadata"].update(finalizers=[]))
    cluster.until(lambda: [_uid(former)] != [_uid(j) for j in cluster.store.find("pytorchjobs")])
    cluster.until(lambda: cluster.store.find("pytorchjobs"))
    cluster.condition("pytorchjobs", name, "Succeeded")
    assert run.end() is None


def test_a_job_of_the_name_that_does_something_else_is_replaced(
    api: Api, place: Place, training: JobRequest, cluster: KubernetesApi
) -> None:
    make_or_adopt(api, place, training)
    cluster.update(
        "pytorchjobs",
        training.name,
        lambda job: job["metadata"]["annotations"].update({SPEC_HASH: "another"}),
    )
    made, is_adopted = make_or_adopt(api, place, training)
    assert not is_adopted
    assert made["metadata"]["annotations"][SPEC_HASH] == training.spec_hash


def test_a_living_job_for_the_same_part_with_other_settings_is_ended_first(
    api: Api, place: Place, training: JobRequest, cluster: KubernetesApi
) -> None:
    make_or_adopt(api, place, training)
    changed = replace(training, manifest={"spec": {**training.manifest["spec"], "more": 1}})
    assert changed.name != training.name
    make_or_adopt(api, place, changed)
    assert [job["metadata"]["name"] for job in cluster.store.find("pytorchjobs")] == [changed.name]


def test_other_runs_and_other_parts_are_left_alone(
    api: Api, place: Place, mapping: JobRequest, cluster: KubernetesApi
) -> None:
    for request in (mapping, replace(mapping, run_id="b"), replace(mapping, part="reduce")):
        make_or_adopt(api, place, request)
    assert len(cluster.store.find("jobs")) == 3


def test_losing_the_race_to_create_means_to_adopt(
    api: Api, place: Place, training: JobRequest, cluster: KubernetesApi
) -> None:
    cluster.fail(409, verb="create")
    assert not make_or_adopt(api, place, training)[1]
    assert len(cluster.made("create", "pytorchjobs")) == 2


def test_a_create_whose_answer_is_lost_makes_one_job(
    api: Api, place: Place, training: JobRequest, cluster: KubernetesApi
) -> None:
    cluster.put("pytorchjobs", training.object(place))  # the try whose answer is lost
    cluster.fail(404, verb="get", resource="pytorchjobs")  # it was looked for before
    cluster.fail(0, verb="create")
    assert make_or_adopt(api, place, training)[1]
    assert len(cluster.store.find("pytorchjobs")) == 1
