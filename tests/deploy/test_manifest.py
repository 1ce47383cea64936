"""The Deployment's manifest against the local server, and against what a rollout relies on."""

from pathlib import Path

import pytest

from pipelines.services import triton
from pipelines.services.state import State
from plsc.cluster.templates import read_template

_OF_THE_PLACE = ("--model-repository", "--backend-directory", "--exit-timeout-secs")


@pytest.fixture
def container() -> dict[str, object]:
    deployment, _ = read_template("deploy/triton.yaml")
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return found


def test_the_server_has_the_options_of_a_local_one(
    container: dict[str, list[str]], tmp_path: Path
) -> None:
    if not triton.ENVIRONMENT_PATH.is_dir():
        pytest.skip(f"no {triton.ENVIRONMENT_PATH}: make it with `make install`")
    ports = dict.fromkeys(triton.ROLES, 1)
    local = set(triton.plan(tmp_path, State(), ports, "http://127.0.0.1:1").command[1:])
    apart = (*_OF_THE_PLACE, *(f"--{role}-" for role in triton.ROLES))
    common = {option for option in local if not option.startswith(apart)}
    assert common <= set(container["args"])


def test_a_pod_outlives_the_connections_of_its_clients(container: dict[str, dict]) -> None:
    """A pod that leaves the Service lives until each connection was closed for its age."""
    deployment, _ = read_template("deploy/triton.yaml")
    pod = deployment["spec"]["template"]["spec"]
    options = dict(
        option.removeprefix("--").split("=", 1) for option in container["args"] if "=" in option
    )
    age_s = int(options["grpc-max-connection-age"]) / 1000
    pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause_s > 1.1 * age_s + 2, (
        "gRPC adds up to a tenth; a Service follows in a second or two"
    )
    exit_s = int(options["exit-timeout-secs"])
    assert pod["terminationGracePeriodSeconds"] > pause_s + exit_s
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_triton_without_a_repository_is_started_again_after_a_minute(
    container: dict[str, dict],
) -> None:
    """It listens, and is not live; the probe of the start must not wait for more than that."""
    assert container["startupProbe"]["tcpSocket"] == {"port": "http"}
    liveness = container["livenessProbe"]
    assert liveness["httpGet"]["path"] == "/v2/health/live"
    assert liveness["periodSeconds"] * liveness["failureThreshold"] <= 60
