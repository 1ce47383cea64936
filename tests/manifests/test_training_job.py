"""The PyTorchJob that train creates is one that the operator takes, whatever is configured."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.manifests.jobs import training_job
from tests.manifests.operator_rules import problems
from tests.manifests.rendering import read
from tests.manifests.test_overlays import check

TASK = {
    "resources": {"limits": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"}},
    "env": [{"name": "HELLO", "value": "1"}],
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "nodeSelector": {"pool": "gpu"},
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
                ]
            }
        }
    },
    "volumes": [{"name": "scratch", "emptyDir": {}}],
    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
}


def template() -> dict[str, Any]:
    (job,) = read("base/train/pytorchjob.yaml")
    return job


def test_the_template_is_one_that_the_operator_takes() -> None:
    assert problems(template()) == []


def _set(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(job: Any) -> None:
        for key in path[:-1]:
            job = job[key]
        job[path[-1]] = value

    return change


MASTER = ("spec", "pytorchReplicaSpecs", "Master")
CONTAINER = (*MASTER, "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("metadata", "name", value="Train"), "DNS-1035"),
        (_set("metadata", "name", value="1st"), "DNS-1035"),
        (_set("metadata", "name", value="x" * 55), "too long"),
        (_set("spec", "nprocPerNode", value=2), "not of type 'string'"),
        (_set("spec", "runPolicy", "cleanPodPolcy", value="None"), "cleanPodPolcy"),
        (_set("spec", "runPolicy", "managedBy", value="me"), "managedBy"),
        (_set("spec", "pytorchReplicaSpecs", value={}), "required"),
        (_set("spec", "elasticPolicy", "minReplicas", value=1), "elasticPolicy"),
        (_set(*MASTER, "replicas", value=2), "Master.replicas is 2"),
        (_set("spec", "pytorchReplicaSpecs", "Worker", "replicas", value=0), "Worker.replicas"),
        (_set("spec", "pytorchReplicaSpecs", "Evaluator", value=None), "only Master and Worker"),
        (_set(*CONTAINER, "name", value="train"), "no container is named pytorch"),
        (_set(*CONTAINER, "image", value=""), "without an image"),
        (_set(*CONTAINER, "comand", value=[]), "comand"),
        (_set(*CONTAINER, "resources", "limits", "memory", value=[]), "is not valid"),
    ],
)
def test_what_the_operator_refuses_is_found(
    change: Callable[[dict[str, Any]], None], words: str
) -> None:
    job = copy.deepcopy(template())
    if words == "elasticPolicy":
        job["spec"]["elasticPolicy"] = {}
        del job["spec"]["pytorchReplicaSpecs"]["Worker"]
    if words == "only Master and Worker":
        value = copy.deepcopy(job["spec"]["pytorchReplicaSpecs"]["Master"])
        _set("spec", "pytorchReplicaSpecs", "Evaluator", value=value)(job)
    else:
        change(job)
    assert any(words in problem for problem in problems(job)), problems(job)


@pytest.mark.parametrize("task", [None, TASK], ids=["no task", "task"])
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.ranks=4", "train.pods.count=2"],
        ["train.ranks=2", "train.pods.gpus=2", "train.pods.cpu=8", "train.pods.memory=64Gi"],
        [
            "train.ranks=16", "train.pods.count=8", "train.pods.gpus=2", "train.pods.shm=16Gi",
            "train.pods.queue=team", "train.pods.priority_class=high",
            "train.pods.node_selector=['pool=gpu']",
            "train.pods.tolerations=['gpu:NoSchedule','dedicated=plsc:NoExecute','any']",
        ],
    ],
)  # fmt: skip
def test_what_train_creates_is_taken(overrides: list[str], task: dict[str, Any] | None) -> None:
    job = training_job(*overrides, task=task)
    assert problems(job) == []
    check([job])
    assert len(f"{job['metadata']['name']}-worker-999") <= 63
