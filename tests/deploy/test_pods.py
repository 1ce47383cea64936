"""The pods of a Deployment as servers: who counts, and a whole deploy to two real Tritons."""

import logging
import threading
from collections.abc import Iterator

import pytest

from pipelines.services import Services
from plsc.client import GrpcTransport
from plsc.cluster.api import Api
from plsc.deploy import stage
from plsc.deploy.canary import Canary
from plsc.deploy.control import Control
from plsc.deploy.pods import DeploymentPods
from plsc.errors import DeployError
from tests.deploy.exports import assert_serves, config_for, objects
from tests.deploy.serving_cluster import ServingCluster


@pytest.fixture
def pods(cluster: ServingCluster, api: Api) -> Iterator[DeploymentPods]:
    cluster.deployment(available=1)
    with DeploymentPods.reach(api, "triton", "127.0.0.1:9", timeout_s=1.0) as reached:
        yield reached


def _names(pods: DeploymentPods) -> list[str]:
    return sorted(server.name for server in pods.current())


def test_pods_that_take_requests_are_servers(cluster: ServingCluster, pods: DeploymentPods) -> None:
    cluster.serve("triton-1", "127.0.0.1:1234")
    cluster.serve("triton-ipv6", "fd00::7:1235")
    cluster.serve("triton-going")
    cluster.begin_to_end("triton-going")
    cluster.make("triton-pending")
    cluster.pod("somebody-else")
    addresses = {server.name: server.control.address for server in pods.current()}
    assert addresses == {"triton-1": "127.0.0.1:1234", "triton-ipv6": "[fd00::7]:1235"}
    assert pods.current() == pods.current(), "connections are kept"


def test_a_pod_that_is_starting_is_waited_for(
    cluster: ServingCluster, pods: DeploymentPods
) -> None:
    cluster.serve("triton-1")
    cluster.start("triton-2")
    timer = threading.Timer(0.2, cluster.condition, ("pods", "triton-2", "Ready"))
    timer.start()
    assert _names(pods) == ["triton-1", "triton-2"]
    timer.join()


def test_a_pod_that_never_gets_ready_is_waited_for_once(
    cluster: ServingCluster, pods: DeploymentPods, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.serve("triton-1")
    cluster.start("triton-2")
    assert _names(pods) == ["triton-1"]
    assert "not ready after 1 s, going on without: triton-2" in caplog.text
    calls = len(cluster.calls)
    assert _names(pods) == ["triton-1"]
    assert len(cluster.calls) == calls + 2, "one look, no waiting"


def test_gone_is_who_was_taken_away_not_who_failed(
    cluster: ServingCluster, pods: DeploymentPods
) -> None:
    names = ["crashed", "deleted", "evicted", "going", "replaced"]
    for name in names:
        cluster.serve(name)
    servers = {server.name: server for server in pods.current()}
    cluster.end_pod("crashed", 137, "OOMKilled", restarts=True)
    cluster.remove_pod("deleted")
    cluster.evict("evicted")
    cluster.begin_to_end("going")
    cluster.remove_pod("replaced")
    cluster.serve("replaced")
    assert [name for name in names if pods.is_gone(servers[name])] == names[1:]
    error = DeployError("Triton does not load 'face': failed to poll from model repository")
    told = pods.explain(servers["crashed"], error)
    assert "that is pod crashed" in told
    assert "TRITON_REPOSITORY" in told
    assert "container triton: OOMKilled (exit code 137, limit 2Gi)" in told


def test_a_pod_without_a_port_for_grpc_is_told(
    cluster: ServingCluster, pods: DeploymentPods
) -> None:
    cluster.serve("triton-1")
    cluster.update("pods", "triton-1", lambda pod: pod["spec"]["containers"][0].pop("ports"))
    with pytest.raises(DeployError, match="triton-1 has no container port named 'grpc'"):
        pods.current()


@pytest.mark.services
@pytest.mark.timeout(240)
def test_every_pod_serves_the_new_version_or_none_does(
    cluster: ServingCluster,
    services: Services,
    second_url: str,
    name: str,
    bucket_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Version 1 on one pod; a second one comes while version 2 is loaded; version 3 fails there."""
    caplog.set_level(logging.INFO, logger="plsc")
    cluster.deployment(available=1)
    cluster.serve("triton-1", services.triton_url)
    cluster.pod("step")
    monkeypatch.setenv("KFP_POD_NAME", "step")
    load, check = Control.load, Canary.check

    def second_comes(self: Control, model: str) -> None:
        if not cluster.store.find("pods", fields="metadata.name=triton-2"):
            load(second, name)
            cluster.serve("triton-2", second_url)
        load(self, model)

    def third_fails(self: Canary, transport: GrpcTransport, model: str, version: int) -> float:
        if (transport.address, model, version) == (second_url, name, 3):
            raise DeployError("canary: another arithmetic")
        return check(self, transport, model, version)

    def deploy(seed: int) -> int:
        on_cluster = ("deploy.backend=deployment", "deploy.image=")
        return stage.run(config_for(name, bucket_uri, seed, *on_cluster)).version

    assert deploy(1) == 1
    with Control(second_url, timeout_s=30) as second:
        monkeypatch.setattr(Control, "load", second_comes)
        assert deploy(2) == 2
        for address in (services.triton_url, second_url):
            assert_serves(address, name, 2)
        assert "triton-2 serves version 2" in caplog.text

        monkeypatch.setattr(Canary, "check", third_fails)
        words = "another arithmetic; that is pod triton-2; version 2 serves on"
        with pytest.raises(DeployError, match=words):
            deploy(3)
        for address in (services.triton_url, second_url):
            assert_serves(address, name, 2)
        second.unload(name)
    assert objects(name) == ["1/model.onnx", "2/model.onnx", "config.pbtxt"]
    assert len(cluster.made("create", "leases")) == 3
    assert cluster.store.find("leases") == []
