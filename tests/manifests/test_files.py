"""What is in the files, whatever overlay they end up in."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import images
from pipelines.end_to_end import SECRET, SECRET_KEYS, SETTINGS, SETTINGS_KEYS
from plsc import conf, storage
from tests.manifests.rendering import MANIFESTS, TEMPLATES, of_kind, pod_templates, read, render

FILES = sorted(MANIFESTS.rglob("*.yaml"))
ALONE = {*TEMPLATES, "base/platform/secret.example.yaml"}
"""In no kustomization: what the steps read, and an example."""
WITH_PODS = (
    *TEMPLATES, "base/deploy/triton.yaml", "overlays/kind/object-store.yaml",
    "overlays/kind/jobs/base/job.yaml",
)  # fmt: skip
POD_TEMPLATES = [
    pytest.param(template, id=name)
    for file in WITH_PODS
    for name, template in pod_templates(read(file))
]
PODS = [pytest.param(one.values[0]["spec"], id=one.id) for one in POD_TEMPLATES]


def listed(kustomization: dict[str, Any]) -> list[str]:
    patches = [patch["path"] for patch in kustomization.get("patches", []) if "path" in patch]
    return [*kustomization.get("resources", []), *kustomization.get("components", []), *patches]


def test_every_file_is_in_a_kustomization_but_templates_and_the_example() -> None:
    used = {MANIFESTS / name for name in ALONE}
    for path in MANIFESTS.rglob("kustomization.yaml"):
        names = listed(yaml.safe_load(path.read_text()))
        used |= {path, *((path.parent / name).resolve() for name in names)}
    assert set(FILES) <= used


def test_every_object_says_what_it_is_and_has_a_name_that_any_kind_takes() -> None:
    for path in FILES:
        for one in yaml.safe_load_all(path.read_text()):
            if isinstance(one, list):
                continue  # a JSON patch
            assert one["apiVersion"]
            assert one["kind"]
            if one["kind"] not in {"Kustomization", "Component"}:
                assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", one["metadata"]["name"])


def test_only_overlays_name_a_namespace() -> None:
    for path in FILES:
        if path.name != "kustomization.yaml":
            assert "namespace:" not in path.read_text(), path


@pytest.mark.parametrize("pod", PODS)
def test_containers_run_as_a_number_without_rights_on_a_read_only_disk(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert container["resources"]["requests"]["cpu"]
        assert container["resources"]["limits"]["memory"]
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in pod["volumes"]
        }


@pytest.mark.parametrize("template", POD_TEMPLATES)
def test_pods_want_no_sidecar_which_would_keep_jobs_from_their_end(
    template: dict[str, Any],
) -> None:
    assert template["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"


@pytest.mark.parametrize("pod", PODS)
def test_images_are_ours_with_our_tag(pod: dict[str, Any]) -> None:
    ours = [images.ref(name) for name in images.NAMES]
    assert all(container["image"] in ours for container in pod["containers"])


@pytest.mark.parametrize("pod", PODS)
def test_pods_find_the_secret_and_the_settings_by_their_names(pod: dict[str, Any]) -> None:
    for container in pod["containers"]:
        sources = {next(iter(source.values()))["name"] for source in container["envFrom"]}
        assert SECRET in sources
        assert sources <= {SECRET, SETTINGS}


def test_no_file_holds_a_credential_or_a_registry() -> None:
    (secret,) = read("base/platform/secret.example.yaml")
    assert secret["metadata"]["name"] == SECRET
    assert secret["stringData"] == dict.fromkeys(SECRET_KEYS, "")
    for path in FILES:
        assert not re.search(r"AKIA|PRIVATE KEY|\w+\.(io|com)/[a-z]+/\w+:", path.read_text())


def test_settings_are_those_that_the_steps_read_and_triton_reads_what_deploy_writes() -> None:
    settings = of_kind(read("base/platform/settings.yaml"), "ConfigMap")
    assert settings["metadata"]["name"] == SETTINGS
    assert settings["data"].keys() == {*SETTINGS_KEYS, "TRITON_REPOSITORY"}
    uri = f"store_uri={settings['data']['PLSC_STORE_URI']}"
    config = conf.compose("glyphs", "run_id=check", uri)
    assert settings["data"]["TRITON_REPOSITORY"] == config.deploy.repository_uri
    host, _, port = settings["data"]["PLSC_TRITON_URL"].partition(":")
    service = of_kind(read("base/deploy/triton.yaml"), "Service")
    assert host == service["metadata"]["name"]
    assert int(port) in [entry["port"] for entry in service["spec"]["ports"]]


def _arguments() -> dict[str, list[str]]:
    """Return the arguments of each Job of the kind overlay, by its name."""
    return {
        one["metadata"]["name"]: template["spec"]["containers"][0]["args"]
        for one in render("overlays/kind")
        if one["kind"] == "Job"
        for _, template in pod_templates([one])
    }


def test_sample_data_is_where_the_experiments_look_for_it() -> None:
    found = _arguments()
    for name, recipe in (("sample-data", "tiny"), ("sample-data-glyphs", "glyphs")):
        config = conf.compose(recipe, "run_id=check", "store_uri=s3://bucket")
        out_uri = config.data_uri.replace("s3://bucket", "$(PLSC_STORE_URI)")
        assert found[name] == ["--recipe", recipe, "--out-uri", out_uri]


def test_the_model_repository_of_kind_is_made_where_deploy_looks_for_it(tmp_path: Path) -> None:
    """Without deploy's having been there, Triton finds a repository."""
    (code,) = _arguments()["model-repository"]
    exec(code.replace("$(PLSC_STORE_URI)", str(tmp_path)))
    config = conf.compose("glyphs", "run_id=check", f"store_uri={tmp_path}")
    assert storage.exists(storage.join(config.deploy.repository_uri, ".keep"))
