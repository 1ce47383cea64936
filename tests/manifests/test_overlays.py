"""What kustomize renders: valid objects, in one namespace, that fit each other."""

import functools
import json
from typing import Any

import kubernetes_validate
import pytest

from tests.manifests.rendering import (
    OVERLAYS,
    TEMPLATES,
    of_kind,
    pod_templates,
    read,
    render,
    render_with,
)

VERSIONS = ("1.32", "1.34")
"""Of Kubernetes: the first and the last that manifests/README.md names."""
FOREIGN = {"PyTorchJob", "ServiceMonitor"}
"""Kinds that Kubernetes does not have by itself."""
CLUSTER_WIDE = {"Namespace"}


def check(objects: list[dict[str, Any]]) -> None:
    """Check objects, and the pod templates in them, strictly: unknown fields are refused."""
    for one in objects:
        if one["kind"] not in FOREIGN:
            _validate(json.dumps(one))
    for _, template in pod_templates(objects):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "check"}}
        _validate(json.dumps(pod | {"template": template}))


@functools.cache
def _validate(content: str) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(json.loads(content), version, strict=True)


@pytest.mark.parametrize("file", TEMPLATES)
def test_templates_are_valid(file: str) -> None:
    check(read(file))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_renders_into_valid_objects(overlay: str) -> None:
    check(render(overlay))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_misspelled_field_is_found(overlay: str) -> None:
    one = render(overlay)[0]
    with pytest.raises(kubernetes_validate.ValidationError):
        check([one | {"metdata": {}}])


@pytest.mark.parametrize(
    ("overlay", "components"),
    [
        ("overlays/kind", ["components/persistent-store"]),
        ("overlays/kind", ["components/autoscaling"]),
        ("overlays/production", ["components/monitoring", "components/gpu"]),
    ],
)
def test_every_component_fits_its_overlay(overlay: str, components: list[str]) -> None:
    objects = render_with([overlay], components)
    check(objects)
    if "components/persistent-store" in components:
        store = of_kind(objects, "Deployment", "object-store")["spec"]["template"]["spec"]
        assert {"name": "data", "persistentVolumeClaim": {"claimName": "object-store"}} in store[
            "volumes"
        ]
    if "components/gpu" in components:
        (triton,) = of_kind(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
        assert triton["resources"]["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize(
    ("overlay", "namespace", "account"),
    [
        ("overlays/kind", "kubeflow", "pipeline-runner"),
        ("overlays/production", "plsc", "default-editor"),
    ],
)
def test_an_overlay_is_in_one_namespace_that_it_does_not_make(
    overlay: str, namespace: str, account: str
) -> None:
    objects = render(overlay)
    assert not [one for one in objects if one["kind"] in CLUSTER_WIDE]
    assert {one["metadata"]["namespace"] for one in objects} == {namespace}
    subjects = [s for one in objects if one["kind"] == "RoleBinding" for s in one["subjects"]]
    assert {(subject["name"], subject["namespace"]) for subject in subjects} == {
        ("plsc-pipeline", namespace),
        (account, namespace),
    }


def test_the_kind_overlay_fits_any_other_namespace() -> None:
    objects = render_with(["overlays/kind"], namespace="elsewhere")
    check(objects)
    assert {one["metadata"]["namespace"] for one in objects} == {"elsewhere"}
    subjects = of_kind(objects, "RoleBinding", "plsc-pipeline")["subjects"]
    assert [subject["namespace"] for subject in subjects] == ["elsewhere"]


def test_registry_and_tag_are_set_by_images() -> None:
    images = [{"name": "plsc-triton", "newName": "registry/team/plsc-triton", "newTag": "7"}]
    triton = of_kind(render_with(["overlays/production"], images=images), "Deployment")
    (container,) = triton["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry/team/plsc-triton:7"


@pytest.mark.parametrize("overlay", OVERLAYS[:2])
def test_services_budgets_and_autoscalers_meet_the_pods_that_they_are_for(overlay: str) -> None:
    objects = render(overlay)
    pods = [template["metadata"]["labels"] for _, template in pod_templates(objects)]
    for one in objects:
        selector = one["spec"]["selector"] if one["kind"] == "Service" else {}
        if one["kind"] == "PodDisruptionBudget":
            selector = one["spec"]["selector"]["matchLabels"]
        assert len([labels for labels in pods if selector.items() <= labels.items()]) == 1 or (
            not selector
        )
        if one["kind"] == "HorizontalPodAutoscaler":
            target = one["spec"]["scaleTargetRef"]
            assert "replicas" not in of_kind(objects, target["kind"], target["name"])["spec"]


def test_the_kind_overlay_is_small_and_pulls_nothing_that_is_there() -> None:
    objects = render("overlays/kind")
    requested = 0
    for _, template in pod_templates(objects):
        (container,) = template["spec"]["containers"]
        assert container["imagePullPolicy"] == "IfNotPresent"
        requested += int(container["resources"]["requests"]["cpu"].removesuffix("m"))
    assert requested <= 500  # millicores of the 2000 that such a node has


def test_the_kind_overlays_triton_reads_the_store_that_is_beside_it() -> None:
    objects = render("overlays/kind")
    store = of_kind(objects, "Service", "object-store")
    settings = of_kind(objects, "ConfigMap")["data"]
    bucket = settings["PLSC_STORE_URI"].removeprefix("s3://")
    endpoint = f"http://{store['metadata']['name']}:{store['spec']['ports'][0]['port']}"
    assert settings["TRITON_REPOSITORY"] == f"s3://{endpoint}/{bucket}/models"


def test_production_keeps_two_servers_and_scales_on_requests_that_wait() -> None:
    scaler = of_kind(render("overlays/production"), "HorizontalPodAutoscaler")["spec"]
    assert scaler["minReplicas"] == 2
    names = [metric["pods"]["metric"]["name"] for metric in scaler["metrics"] if "pods" in metric]
    assert names == ["nv_inference_pending_request_count"]
