"""What the tests of deploy share: a model's name, and a second Triton on the same repository."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.services import Services, triton
from pipelines.services.process import await_ready, choose_ports, spawn, stop
from pipelines.services.state import State
from plsc.cluster.api import Api
from plsc.deploy.control import Control
from tests.deploy.serving_cluster import ServingCluster


@pytest.fixture
def name(services: Services) -> Iterator[str]:
    """A model name of its own; the model is unloaded at the end."""
    made = f"model-{uuid.uuid4().hex[:8]}"
    yield made
    with Control(services.triton_url, timeout_s=30) as control:
        control.unload(made)


@pytest.fixture(scope="session")
def second_url(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gRPC address of a Triton beside the session's own, on the same repository."""
    path: Path = tmp_path_factory.mktemp("second")
    ports = choose_ports("second Triton", triton.ROLES, {})
    state = State.read(services.state_path)
    launch = triton.plan(path, state, ports, os.environ["S3_ENDPOINT"])
    launch.prepare()
    server, child = spawn(launch)
    try:
        await_ready(launch, child, timeout_s=60)
        yield f"127.0.0.1:{ports['grpc']}"
    finally:
        stop("second Triton", server)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServingCluster]:
    """A stub cluster, to which this process is connected from outside."""
    for variable in ("KUBERNETES_SERVICE_HOST", "KFP_POD_NAME", "HOSTNAME"):
        monkeypatch.delenv(variable, raising=False)
    for poll in ("deployment", "pods", "turn"):
        monkeypatch.setattr(f"plsc.deploy.{poll}._POLL_S", 0.05)
    with ServingCluster() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path)))
        yield running


@pytest.fixture
def api(cluster: ServingCluster) -> Iterator[Api]:
    """The way to the stub cluster."""
    with Api.connect() as connected:
        yield connected
