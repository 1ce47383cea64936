"""What schemas cannot say about the manifests; the rules of the PyTorchJob webhook included."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.images import VERSION
from pipelines.end_to_end import SECRET, SECRET_KEYS, SETTINGS, SETTINGS_KEYS
from plsc import conf

MANIFESTS = Path(__file__).parents[2] / "manifests"
FILES = sorted(MANIFESTS.rglob("*.yaml"))


def documents() -> Iterator[dict[str, Any]]:
    for path in FILES:
        yield from yaml.safe_load_all(path.read_text())


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = (document for document in documents() if document["kind"] == kind)
    return found


def pods() -> list[dict[str, Any]]:
    replicas = of_kind("PyTorchJob")["spec"]["pytorchReplicaSpecs"].values()
    templates = [replica["template"] for replica in replicas]
    return [
        template["spec"] for template in [*templates, of_kind("Deployment")["spec"]["template"]]
    ]


def test_every_file_holds_objects_that_say_what_they_are() -> None:
    for document in documents():
        assert document["apiVersion"]
        assert document["kind"]
        if document["kind"] != "Kustomization":
            assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", document["metadata"]["name"])


def test_every_file_is_in_a_kustomization_but_the_template_and_the_example() -> None:
    listed = {
        MANIFESTS / "base/train/pytorchjob.yaml",
        MANIFESTS / "base/platform/secret.example.yaml",
    }
    for path in MANIFESTS.rglob("kustomization.yaml"):
        listed.add(path)
        listed |= {
            (path.parent / name).resolve() for name in yaml.safe_load(path.read_text())["resources"]
        }
    assert set(FILES) <= listed


def test_containers_run_as_a_number_without_rights_on_a_read_only_disk() -> None:
    for pod in pods():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_images_have_our_tag() -> None:
    images = [container["image"] for pod in pods() for container in pod["containers"]]
    assert images
    assert all(re.fullmatch(rf"plsc-[a-z]+:{re.escape(VERSION)}", image) for image in images)


def test_no_file_holds_a_credential_or_a_registry() -> None:
    assert not any(of_kind("Secret")["stringData"].values())
    for path in FILES:
        assert not re.search(
            r"AKIA|BEGIN [A-Z ]*PRIVATE|\w+\.(io|com)/[a-z]+/\w+:", path.read_text()
        )


def test_steps_and_pods_find_the_secret_and_the_settings_by_their_names() -> None:
    assert of_kind("Secret")["metadata"]["name"] == SECRET
    assert of_kind("Secret")["stringData"].keys() == set(SECRET_KEYS)
    assert of_kind("ConfigMap")["metadata"]["name"] == SETTINGS
    assert of_kind("ConfigMap")["data"].keys() >= set(SETTINGS_KEYS)
    for pod in pods():
        for container in pod["containers"]:
            sources = [next(iter(source.values()))["name"] for source in container["envFrom"]]
            assert set(sources) == {SECRET, SETTINGS}


def test_triton_reads_the_repository_that_deploy_writes() -> None:
    settings = of_kind("ConfigMap")["data"]
    config = conf.compose("glyphs", "run_id=check", f"store_uri={settings['PLSC_STORE_URI']}")
    assert settings["TRITON_REPOSITORY"] == config.deploy.repository_uri
    host, _, port = settings["PLSC_TRITON_URL"].partition(":")
    service = of_kind("Service")
    assert host == f"{service['metadata']['name']}.plsc.svc"
    assert int(port) in [entry["port"] for entry in service["spec"]["ports"]]


def test_the_service_selects_the_deployments_pods() -> None:
    deployment = of_kind("Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert of_kind("Service")["spec"]["selector"].items() <= labels.items()
    assert (
        of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    )


def test_the_training_job_is_one_that_the_operator_takes() -> None:
    spec = of_kind("PyTorchJob")["spec"]
    assert isinstance(spec["nprocPerNode"], str)
    assert spec["runPolicy"]["cleanPodPolicy"] == "None"
    replicas = spec["pytorchReplicaSpecs"]
    assert replicas.keys() == {"Master", "Worker"}
    assert replicas["Master"]["replicas"] == 1
    for replica in replicas.values():
        assert replica["restartPolicy"] == "OnFailure"
        assert [container["name"] for container in replica["template"]["spec"]["containers"]] == [
            "pytorch"
        ]


@pytest.mark.parametrize("overlay", ["local", "production"])
@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl on PATH to render kustomize"
)
def test_every_overlay_renders_into_one_namespace(overlay: str) -> None:
    command = ["kubectl", "kustomize", str(MANIFESTS / "overlays" / overlay)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = list(yaml.safe_load_all(rendered))
    assert {"Namespace", "Role", "Deployment", "Service", "ConfigMap"} <= {
        one["kind"] for one in found
    }
    for one in found:
        if one["kind"] != "Namespace":
            assert one["metadata"]["namespace"] == "plsc"
