"""Two deploys of a namespace: the second waits for the first, unless that one is dead."""

import logging
import threading

import pytest

from plsc.cluster.api import Api
from plsc.deploy import turn
from plsc.errors import DeployError
from tests.deploy.serving_cluster import ServingCluster
from tests.kubernetes_api import Call

MODEL = "s3://plsc/models/face"


@pytest.fixture(autouse=True)
def _in_pod_a(
    cluster: ServingCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="plsc")
    for name in ("step-a", "step-b"):
        cluster.start(name)
    monkeypatch.setenv("KFP_POD_NAME", "step-a")


def _held_by(cluster: ServingCluster, pod_name: str) -> None:
    cluster.put("leases", turn._manifest(MODEL, pod_name))


def test_a_turn_is_taken_and_given_back(cluster: ServingCluster, api: Api) -> None:
    with turn.taken(api, MODEL):
        lease = cluster.one("leases")
        assert lease["metadata"]["name"] == "plsc-deploy", "the one that the role allows"
        assert lease["spec"]["holderIdentity"] == "step-a"
        assert lease["metadata"]["annotations"]["plsc/model"] == MODEL
    assert cluster.store.find("leases") == []


def test_a_turn_is_given_back_when_the_deploy_fails(cluster: ServingCluster, api: Api) -> None:
    with pytest.raises(DeployError, match="whatever"), turn.taken(api, MODEL):
        raise DeployError("whatever")
    assert cluster.store.find("leases") == []


def test_a_turn_that_cannot_be_given_back_fails_nothing(cluster: ServingCluster, api: Api) -> None:
    with turn.taken(api, MODEL):
        cluster.fail(422, verb="delete", resource="leases")
    assert cluster.one("leases")["spec"]["holderIdentity"] == "step-a"


def test_the_second_waits_for_the_first(
    cluster: ServingCluster, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    _held_by(cluster, "step-b")
    held = threading.Event()

    def deploy() -> None:
        with turn.taken(api, "s3://plsc/models/another"):
            held.set()

    thread = threading.Thread(target=deploy)
    thread.start()
    cluster.until(lambda: f"pod step-b deploys {MODEL}" in caplog.text)
    assert not held.is_set()
    cluster.store.delete("leases", turn._NAME)
    thread.join(10)
    assert held.is_set()


@pytest.mark.parametrize("ended", ["killed", "gone"])
def test_the_turn_of_a_dead_pod_is_taken_over(
    cluster: ServingCluster, api: Api, ended: str
) -> None:
    _held_by(cluster, "step-b")
    if ended == "killed":
        cluster.end_pod("step-b", 143)
    else:
        cluster.remove_pod("step-b")
    with turn.taken(api, MODEL):
        assert cluster.one("leases")["spec"]["holderIdentity"] == "step-a"


def test_an_answer_that_got_lost_is_no_other_deploy(cluster: ServingCluster, api: Api) -> None:
    _held_by(cluster, "step-a")
    with turn.taken(api, MODEL):
        pass
    assert cluster.store.find("leases") == []


def test_without_the_right_to_leases_there_is_only_a_warning(
    cluster: ServingCluster, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.allows = lambda call: call.resource != "leases"
    with api.twin(patience_s=0.0) as impatient, turn.taken(impatient, MODEL):
        pass
    assert "two deploys at once would not wait for each other" in caplog.text


def test_outside_of_the_cluster_there_are_no_turns(
    cluster: ServingCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_POD_NAME", "a-laptop")
    with turn.taken(api, MODEL):
        pass
    assert cluster.calls == [Call("get", "", "pods", "", "a-laptop")]
