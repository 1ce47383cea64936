"""Who gets through to whom on a network that enforces the policies, and who is left alone."""

from typing import Any

import pytest
import yaml

from pipelines.compilation import COMPILED
from tests.manifests.jobs import shared_job, training_job
from tests.manifests.network import Outside, Pod, may_talk
from tests.manifests.rendering import of_kind, pod_templates, render

TRAINING, MAPPING = training_job("train.ranks=2", "train.pods.count=2"), shared_job()
LABELS = {
    name: template["metadata"]["labels"] for name, template in pod_templates([TRAINING, MAPPING])
}
MASTER, WORKER, MAP = (Pod(labels) for labels in LABELS.values())
STEP = Pod(
    {"workflows.argoproj.io/workflow": "plsc-x", "pipelines.kubeflow.org/v2_component": "true"}
)
KFP = Pod({"app": "ml-pipeline", "application-crd-id": "kubeflow-pipelines"}, {"http": 8888})
KFP_STORE = Pod({"app": "seaweedfs", "application-crd-id": "kubeflow-pipelines"})
PROMETHEUS = Pod({}, namespace={"kubernetes.io/metadata.name": "monitoring"})
CLIENT = Pod({}, namespace={"plsc/client": "true"})
STRANGER = Pod({}, namespace={"kubernetes.io/metadata.name": "somewhere"})
DNS = Pod({"k8s-app": "kube-dns"}, namespace={"kubernetes.io/metadata.name": "kube-system"})
AWS, METADATA = Outside("52.216.0.1"), Outside("169.254.169.254")
HTTP, GRPC, METRICS, S3 = 8000, 8001, 8002, 9000


@pytest.fixture(params=["overlays/kind", "overlays/production"])
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return render(request.param)


@pytest.fixture
def policies(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == "NetworkPolicy"]


def pod_of(objects: list[dict[str, Any]], name: str) -> Pod:
    template = of_kind(objects, "Deployment", name)["spec"]["template"]
    ports = template["spec"]["containers"][0]["ports"]
    named = {port["name"]: port["containerPort"] for port in ports}
    return Pod(template["metadata"]["labels"], named)


@pytest.mark.parametrize("port", [HTTP, GRPC])
def test_triton_answers_its_namespace_and_namespaces_of_clients(
    objects: list[dict[str, Any]], policies: list[dict[str, Any]], port: int
) -> None:
    triton = pod_of(objects, "triton")
    assert may_talk(policies, STEP, triton, port)
    assert may_talk(policies, CLIENT, triton, port)
    assert not may_talk(policies, STRANGER, triton, port)
    assert not may_talk(policies, PROMETHEUS, triton, port)


def test_monitoring_reads_tritons_metrics_and_nothing_else(
    objects: list[dict[str, Any]], policies: list[dict[str, Any]]
) -> None:
    triton = pod_of(objects, "triton")
    assert may_talk(policies, PROMETHEUS, triton, METRICS)
    assert not may_talk(policies, CLIENT, triton, METRICS)
    assert not may_talk(policies, PROMETHEUS, WORKER, METRICS)


@pytest.mark.parametrize("port", [23456, 40001])
def test_ranks_reach_each_other_at_any_port_and_nobody_else_reaches_them(
    policies: list[dict[str, Any]], port: int
) -> None:
    assert may_talk(policies, WORKER, MASTER, port)
    assert may_talk(policies, MASTER, WORKER, port)
    for other in (STEP, MAP, STRANGER, CLIENT, KFP):
        assert not may_talk(policies, other, MASTER, port)
    assert not may_talk(policies, STRANGER, MAP, port)


def test_our_pods_reach_names_and_the_store_but_not_the_metadata_service_or_the_cluster(
    objects: list[dict[str, Any]], policies: list[dict[str, Any]]
) -> None:
    for pod in (MASTER, WORKER, MAP, pod_of(objects, "triton")):
        assert may_talk(policies, pod, DNS, 53, "UDP")
        assert may_talk(policies, pod, AWS, 443)
        assert not may_talk(policies, pod, AWS, 22)
        assert not may_talk(policies, pod, METADATA, 80)
        assert not may_talk(policies, pod, METADATA, 443)
        assert not may_talk(policies, pod, KFP, 8888)


def test_the_store_of_the_kind_overlay_answers_its_namespace_on_s3_only() -> None:
    objects = render("overlays/kind")
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    store = pod_of(objects, "object-store")
    painter = Pod(of_kind(objects, "Job", "sample-data")["spec"]["template"]["metadata"]["labels"])
    for pod in (MASTER, MAP, STEP, painter, pod_of(objects, "triton")):
        assert may_talk(policies, pod, store, S3)
        for port in (8888, 9333, 9340, 18888):
            assert not may_talk(policies, pod, store, port)
    assert not may_talk(policies, STRANGER, store, S3)


def test_kfps_pods_and_the_pipelines_steps_are_as_free_as_before(
    policies: list[dict[str, Any]],
) -> None:
    for pod in (STEP, KFP, KFP_STORE):
        for other in (STRANGER, STEP, KFP, KFP_STORE):
            assert may_talk(policies, pod, other, 6443)
            assert may_talk(policies, other, pod, 9000)
        assert may_talk(policies, pod, METADATA, 80)


def test_the_compiled_pipeline_gives_its_steps_no_label_that_a_policy_selects(
    policies: list[dict[str, Any]],
) -> None:
    documents = list(yaml.safe_load_all(COMPILED.read_text()))
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for executor in executors.values():
        step = Pod(STEP.labels | executor.get("podMetadata", {}).get("labels", {}))
        assert may_talk(policies, step, Outside("10.96.0.1"), 443)
        assert may_talk(policies, step, KFP, 8888)
