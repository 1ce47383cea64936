"""``make cluster-up`` with stand-ins for kind, kubectl and docker."""

import json
import sys
from pathlib import Path

import pytest

from components import images
from images import build, engine
from pipelines import kind

STANDIN = f"""\
#!{sys.executable}
import os, pathlib, sys

name, folder = pathlib.Path(sys.argv[0]).name, pathlib.Path(os.environ["STANDINS"])
given = sys.stdin.read() if sys.argv[-1] == "-" else ""
if name == "kind":
    (folder / "daemon").write_text(os.environ.get("DOCKER_HOST", ""))
with (folder / "asked").open("a") as file:
    file.write(" ".join([name, *sys.argv[1:]]) + "\\n")
if given:
    (folder / "given").write_text(given)
for line in (folder / "answers").read_text().splitlines():
    part, _, answer = line.partition(" => ")
    if part in " ".join(sys.argv[1:]):
        sys.exit(answer) if answer.startswith("error") else print(answer)
"""


@pytest.fixture
def standins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("kind", "kubectl"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(STANDIN)
        path.chmod(0o755)
    (tmp_path / "answers").touch()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("STANDINS", str(tmp_path))
    for name in ("DOCKER_HOST", "REGISTRY", "TAG"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(engine, "ready", lambda: monkeypatch.setenv("DOCKER_HOST", "unix:///ours"))
    monkeypatch.setattr(
        build, "build", lambda names: (tmp_path / "asked").write_text(f"build {' '.join(names)}\n")
    )
    return tmp_path


def asked(standins: Path) -> list[str]:
    return (standins / "asked").read_text().splitlines()


def test_up_makes_everything_in_order(standins: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert kind.main(["up"]) == 0
    found = asked(standins)
    expected = [
        f"build {' '.join(images.NAMES)}",
        "kind get clusters",
        "kind create cluster --name plsc",
        "kubeflow/pipelines//manifests/kustomize/cluster-scoped-resources?ref=2.17.0",
        "--for=condition=established",
        "kubeflow/pipelines//manifests/kustomize/env/platform-agnostic?ref=2.17.0",
        "kubeflow/trainer//manifests/overlays/standalone?ref=v1.9.4",
        "kind load docker-image --name plsc",
        "get secret",
        "create -f -",
        "overlays/kind",
        "rollout status deployment/ml-pipeline ",
        "--for=condition=complete",
    ]
    places = [next(i for i, line in enumerate(found) if part in line) for part in expected]
    assert places == sorted(places)
    (load,) = [line for line in found if "docker-image" in line]
    assert load.split()[5:] == [images.ref(name) for name in images.NAMES]
    assert all("--context kind-plsc" in line for line in found if line.startswith("kubectl"))
    assert "KFP_HOST=kubectl make pipeline-run" in capfd.readouterr().out


def test_the_keys_of_the_store_are_random_and_on_no_command_line(
    standins: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = []
    for _ in range(2):
        assert kind.main(["up"]) == 0
        secret = json.loads((standins / "given").read_text())
        assert secret["metadata"] == {"name": "plsc-object-store", "namespace": "kubeflow"}
        assert secret["stringData"]["S3_ENDPOINT"] == "http://object-store:9000"
        keys += [
            secret["stringData"][f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
        ]
    assert len(set(keys)) == 4
    assert min(map(len, keys)) >= 20
    output = capfd.readouterr()
    seen = (standins / "asked").read_text() + output.out + output.err
    assert not [key for key in keys if key in seen]


def test_what_is_there_stays(standins: Path) -> None:
    (standins / "answers").write_text(
        "get clusters => plsc\nget secret => secret/plsc-object-store\n"
    )
    assert kind.main(["up"]) == 0
    assert not [line for line in asked(standins) if "create" in line]


def test_it_ends_where_a_command_fails(standins: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (standins / "answers").write_text("standalone => error: no such host\n")
    assert kind.main(["up"]) == 1
    assert "standalone" in asked(standins)[-1]
    assert "it failed at: kubectl" in capfd.readouterr().err


def test_the_images_are_those_of_the_daemon_that_built_them(standins: Path) -> None:
    assert kind.main(["images"]) == 0
    assert (standins / "daemon").read_text() == "unix:///ours"


@pytest.mark.parametrize("name", ["REGISTRY", "TAG"])
@pytest.mark.parametrize("action", ["up", "images"])
def test_other_names_of_images_are_refused_before_any_is_built(
    action: str,
    name: str,
    standins: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, "here.test")
    assert kind.main([action]) == 2
    assert f"expected {name} to be empty" in capfd.readouterr().err
    assert not (standins / "asked").exists()


@pytest.mark.parametrize("missing", ["kind", "kubectl"])
def test_a_missing_program_is_named(
    missing: str, standins: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (standins / "bin" / missing).unlink()
    assert kind.main(["up"]) == 2
    told = capfd.readouterr().err
    assert f"not on the PATH: {missing}." in told
    assert "docs/cluster.md" in told
    assert not (standins / "asked").exists()


def test_images_and_down(standins: Path) -> None:
    assert kind.main(["images"]) == kind.main(["down"]) == 0
    assert [line.split()[:3] for line in asked(standins)] == [
        ["kind", "load", "docker-image"],
        ["kind", "delete", "cluster"],
    ]


def test_no_registry_is_named_and_the_overlay_is_there() -> None:
    assert kind._OVERLAY.joinpath("kustomization.yaml").is_file()
    text = Path(kind.__file__).read_text()
    assert "ghcr" not in text
    assert "docker.io" not in text
