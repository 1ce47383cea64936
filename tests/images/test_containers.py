"""Every image as a cluster runs it: not root, only /tmp writable, no capability, no network."""

import json
import os
from pathlib import Path

import pytest

from components.images import VERSION
from images import engine
from plsc.stages import STAGES
from tests.images import containers

WITH_TORCH = ("train", "evaluate", "export")
LIBRARY = (*STAGES, "train-launch")
SERVERS = ("triton", "object-store")
PROBE = (Path(__file__).parent / "probe.py").read_text()
BASE = Path(__file__).parents[2] / "manifests" / "base"
KILLED_FOR_MEMORY = 137
TORCH_FREE_MB = 700
ABOVE_TORCH_MB = 500


class Facts(dict[str, dict]):
    """What each image of the library finds about itself, asked when a test wants to know."""

    def __init__(self, images: dict[str, str]) -> None:
        super().__init__()
        self._images = images

    def __missing__(self, name: str) -> dict:
        found = containers.output(self._images[name], "python", "-c", PROBE)
        self[name] = json.loads(found)
        return self[name]


@pytest.fixture(scope="session")
def facts(images: dict[str, str]) -> Facts:
    return Facts(images)


def size_mb(image: str) -> float:
    return int(engine.docker("image", "inspect", "--format={{.Size}}", image).stdout) / 1e6


@pytest.mark.parametrize("name", LIBRARY)
def test_it_holds_the_library_kfp_and_the_manifests(facts: dict[str, dict], name: str) -> None:
    found = facts[name]
    assert found["python"] == [3, 11]
    assert found["plsc"] == found["installed"] == VERSION
    assert found["kfp"].startswith("2.")
    assert found["has_kubernetes"]
    assert found["has_torch"] == (name in WITH_TORCH)
    assert found["manifests"] == sorted(str(p.relative_to(BASE)) for p in BASE.rglob("*.yaml"))


@pytest.mark.parametrize("name", LIBRARY)
def test_it_runs_as_nobody_and_writes_nowhere_but_to_tmp(facts: dict[str, dict], name: str) -> None:
    found = facts[name]
    assert (found["uid"], found["gid"]) == (10001, 10001)
    assert found["writable"] == ["/tmp", "/dev/shm"]
    assert found["home"] == "/tmp"
    assert int(found["effective_capabilities"], 16) == 0


@pytest.mark.parametrize("name", [*LIBRARY, *SERVERS])
def test_its_size_is_within_its_budget(
    facts: dict[str, dict], images: dict[str, str], name: str
) -> None:
    torch_mb = facts[name]["torch_mb"] if name in WITH_TORCH else 0
    budget_mb = torch_mb + ABOVE_TORCH_MB if torch_mb else TORCH_FREE_MB
    assert size_mb(images[name]) <= budget_mb


def test_torch_is_one_layer_that_its_images_share(images: dict[str, str]) -> None:
    layers = {
        name: json.loads(
            engine.docker("image", "inspect", "--format={{json .RootFS.Layers}}", image).stdout
        )
        for name, image in {one: images[one] for one in (*LIBRARY, *SERVERS)}.items()
    }
    base, *_ = layers["preprocess"]
    assert all(each[0] == base for each in layers.values())
    core = len(layers["preprocess"]) - 3  # on top: its own packages, the library, the manifests
    assert len({tuple(layers[name][:core]) for name in LIBRARY}) == 1
    assert len({layers[name][core] for name in WITH_TORCH}) == 1


@pytest.mark.parametrize("name", [*LIBRARY, *SERVERS])
def test_it_says_what_it_is_and_keeps_no_secret(images: dict[str, str], name: str) -> None:
    (found,) = json.loads(engine.docker("image", "inspect", images[name]).stdout)
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert not config["Entrypoint"]
    assert config["Labels"]["org.opencontainers.image.title"] == f"plsc-{name}"
    assert config["Labels"]["org.opencontainers.image.version"] == (
        os.environ.get("TAG") or VERSION
    )
    assert config["Labels"].keys() >= {
        "org.opencontainers.image.revision",
        "org.opencontainers.image.source",
    }
    history = engine.docker("history", "--no-trunc", "--format={{.CreatedBy}}", images[name]).stdout
    assert "index-url" not in history.lower().replace("_", "-")
    assert not [line for line in config["Env"] if line.startswith(("PIP_", "AWS_ACC", "AWS_SEC"))]


def test_the_settings_of_the_build_left_nothing(facts: dict[str, dict]) -> None:
    assert {
        name: found["settings_left"] for name, found in facts.items() if found["settings_left"]
    } == {}


@pytest.mark.parametrize("name", LIBRARY)
def test_its_own_command_says_what_it_is_for(images: dict[str, str], name: str) -> None:
    done = containers.run(images[name])
    assert done.returncode == 0, done.stderr
    if name != "train-launch":
        assert "Configuration groups" in done.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_a_wrong_setting_ends_with_2(images: dict[str, str], stage: str) -> None:
    wrong = ("run_id=wrong", "store_uri=/tmp/store", "data_uri=/tmp/data", "train.epochs=-1")
    done = containers.run(images[stage], "python", "-m", f"plsc.{stage}", *wrong)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "train.epochs must be greater than 0" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", LIBRARY)
def test_it_holds_all_that_its_step_imports(images: dict[str, str], name: str) -> None:
    stage = "train" if name == "train-launch" else name
    steps = [f"plsc.{stage}.step", *(["plsc.evaluate.gate_step"] if name == "deploy" else [])]
    containers.output(images[name], "python", "-c", f"import {', '.join(steps)}")


def test_a_container_that_takes_too_much_memory_is_killed(images: dict[str, str]) -> None:
    hungry = ("python", "-c", "held = bytearray(300_000_000)")
    limits = ("--memory=64m", "--memory-swap=64m")
    assert containers.run(images["preprocess"], *hungry, options=limits).returncode == (
        KILLED_FOR_MEMORY
    )


def test_triton_finds_its_libraries(images: dict[str, str]) -> None:
    assert "Usage: tritonserver" in containers.run(images["triton"]).stderr


def test_the_object_store_wants_keys(images: dict[str, str]) -> None:
    done = containers.run(images["object-store"])
    assert done.returncode == 2
    assert "AWS_ACCESS_KEY_ID" in done.stderr
