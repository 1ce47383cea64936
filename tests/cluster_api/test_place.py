from typing import Any

import pytest

from plsc.cluster.api import Api
from plsc.cluster.place import Place
from plsc.cluster.refusals import ForbiddenError
from tests.kubernetes_api import KubernetesApi


@pytest.fixture
def in_a_run(cluster: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> str:
    """This process is a pod of a Workflow."""
    workflow = cluster.put("workflows", {"metadata": {"name": "run-1"}, "spec": {}})
    uid = str(workflow["metadata"]["uid"])
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-1", "uid": uid}
    owner |= {"controller": True, "blockOwnerDeletion": True}
    metadata = {"name": "step-1", "ownerReferences": [owner]}
    cluster.put("pods", {"metadata": metadata, "spec": {"containers": []}})
    monkeypatch.setenv("KFP_POD_NAME", "step-1")
    return uid


def test_a_person_s_machine_is_nobody_s_pod(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTNAME", "laptop")
    place = Place.here(api)
    assert place == Place("", "plsc")
    assert not place.is_being_terminated(api)


def test_a_step_s_pod_knows_its_workflow(api: Api, in_a_run: str) -> None:
    place = Place.here(api)
    assert (place.pod, place.namespace) == ("step-1", "plsc")
    assert place.owner == {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "name": "run-1",
        "uid": in_a_run,
        "blockOwnerDeletion": False,
    }
    assert not place.is_being_terminated(api)


@pytest.mark.parametrize(
    "spec", [{"activeDeadlineSeconds": 0}, {"shutdown": "Terminate"}, {"shutdown": "Stop"}]
)
def test_a_run_that_is_being_terminated_is_known_by_its_workflow(
    api: Api, cluster: KubernetesApi, in_a_run: str, spec: dict[str, Any]
) -> None:
    place = Place.here(api)
    cluster.update("workflows", "run-1", lambda workflow: workflow["spec"].update(spec))
    assert place.is_being_terminated(api)


def test_a_workflow_with_a_deadline_goes_on(
    api: Api, cluster: KubernetesApi, in_a_run: str
) -> None:
    place = Place.here(api)
    deadline = {"activeDeadlineSeconds": 3600}
    cluster.update("workflows", "run-1", lambda workflow: workflow["spec"].update(deadline))
    assert not place.is_being_terminated(api)


def test_a_workflow_that_is_gone_takes_everything_with_it(
    api: Api, cluster: KubernetesApi, in_a_run: str
) -> None:
    place = Place.here(api)
    cluster.store.delete("workflows", "run-1")
    assert place.is_being_terminated(api)


def test_a_step_that_may_not_look_at_its_pod_is_told_which_right_it_lacks(
    api: Api, cluster: KubernetesApi, in_a_run: str
) -> None:
    cluster.allows = lambda call: call.resource != "pods"
    with pytest.raises(ForbiddenError, match='cannot get resource "pods"'):
        Place.here(api)
