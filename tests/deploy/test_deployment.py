"""The Deployment: applied without force, awaited, and what is said when it does not come up."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from plsc.cluster.api import Api
from plsc.conf.choices import DeployBackend
from plsc.deploy.backend import _is_deployment
from plsc.deploy.deployment import await_rollout, bring_up
from plsc.errors import ConfigError, DeployError
from tests.deploy.serving_cluster import ServingCluster

IMAGE = "plsc-triton:2"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="plsc")
    return caplog


def _comes_up(cluster: ServingCluster) -> Callable[[dict[str, Any]], None]:
    def control(_: dict[str, Any]) -> None:
        if not cluster.store.find("pods"):
            cluster.serve("triton-1")
        cluster.rolled(available=1)

    return control


def test_a_deployment_is_made_and_awaited(cluster: ServingCluster, api: Api) -> None:
    cluster.controllers["deployments"] = _comes_up(cluster)
    assert bring_up(api, image=IMAGE, timeout_s=10) == "triton"
    made = cluster.store.get("deployments", "triton")
    assert "replicas" not in made["spec"], "an autoscaler sets them"
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["image"] == IMAGE
    assert container["command"] == ["tritonserver"]
    ports = cluster.store.get("services", "triton")["spec"]["ports"]
    assert {port["name"]: port["port"] for port in ports}["grpc"] == 8001


def test_applying_again_changes_nothing(cluster: ServingCluster, api: Api) -> None:
    cluster.controllers["deployments"] = _comes_up(cluster)
    bring_up(api, image=IMAGE, timeout_s=10)
    before = cluster.store.get("deployments", "triton")["spec"]
    cluster.store.own("deployments", "triton", "an-autoscaler", "spec.replicas")
    bring_up(api, image=IMAGE, timeout_s=10)
    after = cluster.store.get("deployments", "triton")
    assert (after["spec"], after["metadata"]["generation"]) == (before, 1)


def test_what_somebody_else_manages_stays_as_it_is(
    cluster: ServingCluster, api: Api, logged: pytest.LogCaptureFixture
) -> None:
    cluster.controllers["deployments"] = _comes_up(cluster)
    bring_up(api, image=IMAGE, timeout_s=10)

    def resize(deployment: dict[str, Any]) -> None:
        deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 300

    cluster.update("deployments", "triton", resize)
    field = "spec.template.spec.terminationGracePeriodSeconds"
    cluster.store.own("deployments", "triton", "kubectl", field)
    cluster.rolled(available=1)
    bring_up(api, image="plsc-triton:3", timeout_s=10)
    (container,) = cluster.store.get("deployments", "triton")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["image"] == IMAGE
    assert "Deployment triton is managed by somebody else and stays as it is" in logged.text
    assert f'conflict with "kubectl" using apps/v1: .{field}' in logged.text


def test_without_an_image_the_deployment_that_is_there_will_do(
    cluster: ServingCluster, api: Api
) -> None:
    with pytest.raises(ConfigError, match=r"deploy\.image is empty.*PLSC_TRITON_IMAGE"):
        bring_up(api, image="", timeout_s=10)
    cluster.deployment(available=1)
    bring_up(api, image="", timeout_s=10)
    assert cluster.made("patch", "deployments") == []


def test_pods_that_serve_nobody_have_time_to_be_started_again(
    cluster: ServingCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Triton that found no repository is started again by the kubelet, after a pause."""
    monkeypatch.setattr("plsc.deploy.deployment._BACK_OFF_S", 30.0)
    cluster.deployment(updated=1)
    cluster.start("triton-blind")
    timer = threading.Timer(0.5, cluster.rolled, (), {"available": 1})
    timer.start()
    bring_up(api, image="", timeout_s=0.1)
    timer.join()


def test_no_time_is_added_while_a_pod_serves(
    cluster: ServingCluster, api: Api, logged: pytest.LogCaptureFixture
) -> None:
    cluster.deployment(wanted=2, available=1, updated=2)
    cluster.serve("triton-1")
    cluster.start("triton-2")
    bring_up(api, image="", timeout_s=0.1)
    assert "after 0.1 s: going on" in logged.text


def _unschedulable(cluster: ServingCluster) -> None:
    cluster.unschedulable("triton-1", "0/3 nodes are available: 3 Insufficient memory.")


def _no_image(cluster: ServingCluster) -> None:
    cluster.wait_pod("triton-1", "ImagePullBackOff", 'Back-off pulling image "triton:1"')


def _out_of_memory(cluster: ServingCluster) -> None:
    cluster.run_pod("triton-1")
    cluster.end_pod("triton-1", 137, "OOMKilled", restarts=True)
    cluster.run_pod("triton-1")


def _crash(cluster: ServingCluster) -> None:
    cluster.run_pod("triton-1")
    cluster.say("triton-1", "2026-11-23T01:52:34Z E 1 tritonserver.cc] no such flag")
    cluster.end_pod("triton-1", 1, restarts=True)
    cluster.run_pod("triton-1")
    cluster.wait_pod("triton-1", "CrashLoopBackOff", "back-off 10s restarting")


def _blind(cluster: ServingCluster) -> None:
    cluster.run_pod("triton-1")
    cluster.say("triton-1", "I one", "x E 1 repository path is not a valid directory", "I two")


@pytest.mark.parametrize(
    ("befalls", "words"),
    [
        (_unschedulable, r"triton-1: Unschedulable: 0/3 nodes are available"),
        (_no_image, r"triton-1: ImagePullBackOff \(image triton:1\): Back-off pulling"),
        (_out_of_memory, r"container triton: OOMKilled \(exit code 137, limit 2Gi\)"),
        (_crash, r"(?s)container triton: exit code 1.*triton-1 said:\n.*no such flag"),
        (_blind, r"triton-1 said:\n    x E 1 repository path is not a valid directory$"),
    ],
)
def test_what_keeps_a_pod_from_being_ready_is_named(
    cluster: ServingCluster, api: Api, befalls: Callable[[ServingCluster], None], words: str
) -> None:
    cluster.deployment(updated=1)
    cluster.make("triton-1")
    befalls(cluster)
    with pytest.raises(DeployError, match=words) as caught:
        await_rollout(api, "triton", timeout_s=0.2)
    assert "0 of 1 pods are ready" in str(caught.value)
    assert "waiting ends after 0.2 s (deploy.timeout_s)" in str(caught.value)


def test_an_image_that_cannot_be_is_not_waited_for(cluster: ServingCluster, api: Api) -> None:
    cluster.deployment(wanted=2, available=1, updated=1, replicas=2)
    cluster.make("triton-2")
    cluster.wait_pod("triton-2", "InvalidImageName", "couldn't parse image name")
    with pytest.raises(DeployError, match=r"1 of 2 pods.*, 1 of them to be replaced.*InvalidImage"):
        await_rollout(api, "triton", timeout_s=300)


def test_further_pods_that_find_no_room_are_done_without(
    cluster: ServingCluster, api: Api, logged: pytest.LogCaptureFixture
) -> None:
    cluster.deployment(wanted=3, available=2, updated=3)
    cluster.make("triton-3")
    cluster.unschedulable("triton-3", "0/3 nodes are available")
    await_rollout(api, "triton", timeout_s=0.2)
    assert "2 of 3 pods are ready; triton-3: Unschedulable" in logged.text
    assert "going on with the pods that are ready" in logged.text


def test_a_status_of_an_older_generation_says_nothing(cluster: ServingCluster, api: Api) -> None:
    cluster.deployment(available=1)
    cluster.update("deployments", "triton", lambda found: found["spec"].update(paused=False))
    with pytest.raises(DeployError, match="1 of them to be replaced"):
        await_rollout(api, "triton", timeout_s=0.2)


def test_a_deployment_without_pods_or_without_itself_is_told(
    cluster: ServingCluster, api: Api
) -> None:
    with pytest.raises(DeployError, match="Deployment triton was deleted meanwhile"):
        await_rollout(api, "triton", timeout_s=1)
    cluster.deployment(wanted=0)
    with pytest.raises(DeployError, match=r"no replicas: kubectl -n plsc scale .*--replicas=1"):
        await_rollout(api, "triton", timeout_s=1)


def test_auto_means_the_deployment_in_a_pod_and_a_server_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert not _is_deployment(DeployBackend.auto)
    assert _is_deployment(DeployBackend.deployment)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert _is_deployment(DeployBackend.auto)
    assert not _is_deployment(DeployBackend.server)


def test_a_busy_api_server_is_waited_for(cluster: ServingCluster, api: Api) -> None:
    cluster.controllers["deployments"] = _comes_up(cluster)
    cluster.fail(503, resource="deployments")
    cluster.fail(0, resource="services")
    cluster.fail(429, verb="get", resource="deployments", retry_after="1")
    bring_up(api, image=IMAGE, timeout_s=10)
