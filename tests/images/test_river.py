"""The servers' images serve, and the `tiny` pipeline runs over the images to a live endpoint."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from images import engine
from plsc.stages import STAGES
from tests.images import containers

ROOT = Path(__file__).parents[2]
KEYS = {"AWS_ACCESS_KEY_ID": "images", "AWS_SECRET_ACCESS_KEY": "only-for-these-tests"}
STORE = "http://object-store:9000"
ENVIRONMENT = KEYS | {
    "S3_ENDPOINT": STORE,
    "PLSC_STORE_URI": "s3://plsc",
    "PLSC_TRITON_URL": "triton:8001",
}
IS_UP = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)"
KEEP = "from plsc import storage; storage.write_bytes('s3://plsc/models/.keep', b'kept')"
TRITON = (
    "tritonserver",
    f"--model-repository=s3://{STORE}/plsc/models",
    "--model-control-mode=explicit",
    "--load-model=*",
    "--exit-on-error=false",
    "--strict-readiness=false",
    "--disable-auto-complete-config",
)
ASK = """
from pathlib import Path
from plsc import storage
from plsc.client import Client
pictures = [info.uri for info in storage.list_objects("s3://plsc/data/tiny/samples/")][:2]
files = [Path("/tmp", uri.rpartition("/")[2]) for uri in pictures]
for uri, file in zip(pictures, files):
    storage.download(uri, file)
with Client.connect("triton:8001") as client:
    print(client.model, *client.encode([str(file) for file in files]).shape)
"""

FAILING = """
from kfp import dsl


@dsl.component(base_image="plsc-preprocess:0.1.0", install_kfp_package=False)
def fail() -> None:
    raise SystemExit(3)


@dsl.pipeline(name="failing")
def failing() -> None:
    fail()
"""


@dataclass(frozen=True)
class Servers:
    network: str
    object_store: str
    triton: str


def environment(values: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"--env={key}={value}" for key, value in values.items())


@pytest.fixture(scope="module")
def servers(images: dict[str, str]) -> Iterator[Servers]:
    """An object store and a Triton that reads its models from it, on a network of their own."""

    def answers(url: str) -> bool:
        asked = ("python", "-c", IS_UP, url)
        return containers.run(images["deploy"], *asked, network=network).returncode == 0

    with (
        containers.network() as network,
        containers.started(
            images["object-store"],
            options=(
                "--network-alias=object-store",
                "--tmpfs=/data:uid=10001,mode=0700",
                *environment(KEYS),
            ),
            network=network,
        ) as store,
    ):
        containers.until(lambda: answers(f"{STORE}/healthz"), "to answer", store)
        keep = ("python", "-c", KEEP)
        containers.output(
            images["deploy"], *keep, options=environment(ENVIRONMENT), network=network
        )
        with containers.started(
            images["triton"],
            *TRITON,
            options=("--network-alias=triton", "--shm-size=256m", *environment(KEYS)),
            network=network,
        ) as triton:
            containers.until(
                lambda: answers("http://triton:8000/v2/health/ready"), "to be ready", triton
            )
            yield Servers(network, store, triton)


def run_pipeline(
    target: str, folder: Path, network: str, arguments: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    root = folder / "root"
    root.mkdir()
    root.chmod(0o777)  # the containers' user writes there
    settings = {
        "root": str(root),
        "network": network,
        "environment": ENVIRONMENT,
        "arguments": arguments,
    }
    return subprocess.run(
        [sys.executable, str(Path(__file__).parent / "river.py"), target, json.dumps(settings)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{folder}", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tiny_pipeline_runs_over_the_images_and_its_model_answers(
    images: dict[str, str], docker_library: None, servers: Servers, tmp_path: Path
) -> None:
    assert all(images[stage] for stage in STAGES)  # else nothing of it can be said
    options = environment(ENVIRONMENT)
    paint = ("--recipe", "tiny", "--out-uri", "s3://plsc/data/tiny")
    containers.output(
        images["preprocess"], "python", "-m", "plsc.datasets.glyphs", *paint,
        options=options, network=servers.network,
    )  # fmt: skip
    ran = run_pipeline(
        "pipelines.end_to_end:end_to_end",
        tmp_path,
        servers.network,
        {"experiment": "tiny", "overrides": "run_id=over-images train.ranks=2"},
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said[-6000:]
    assert len(re.findall(r"finished with status SUCCESS", plain(said))) == 7, said[-6000:]
    asked = containers.output(
        images["deploy"], "python", "-c", ASK, options=options, network=servers.network
    )
    model, count, size = asked.split()
    assert (model, int(count)) == ("tiny", 2)
    assert int(size) > 0


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.slow
def test_a_step_that_fails_is_never_taken_for_a_success(
    images: dict[str, str], docker_library: None, tmp_path: Path
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        (folder / "failing.py").write_text(FAILING)
        ran = run_pipeline("failing:failing", folder, "none", {})
        assert ran.returncode != 0
        assert "finished with status FAILURE" in plain(ran.stdout + ran.stderr)


def test_the_servers_end_well_when_they_are_told_to(servers: Servers) -> None:
    """The last test of this module: after it there are no servers."""
    for name in (servers.triton, servers.object_store):
        engine.docker("stop", "--time=40", name)
        assert containers.state(name)["ExitCode"] == 0, containers.log(name)[-4000:]
