import copy
from typing import Any

import pytest

from plsc.cluster.pods import pod_settings, toleration, whole_processors
from plsc.conf.schema import PodsConfig

_TEMPLATE: dict[str, Any] = {
    "containers": [
        {
            "name": "pytorch",
            "image": "plsc-train:0.1.0",
            "resources": {
                "requests": {"cpu": "2", "memory": "8Gi"},
                "limits": {"memory": "8Gi"},
            },
            "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
        }
    ],
    "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}],
}


def _made(task: dict[str, Any] | None = None, **pods: Any) -> dict[str, Any]:
    before = copy.deepcopy(_TEMPLATE)
    made = pod_settings(_TEMPLATE, PodsConfig(**{"image": "", **pods}), task)
    assert before == _TEMPLATE, "the template is not changed"
    return made


def test_an_empty_configuration_leaves_the_template_as_it_is() -> None:
    assert _made() == _TEMPLATE | {"terminationGracePeriodSeconds": 120}


def test_the_configuration_wins_over_the_task_and_the_task_over_the_template() -> None:
    task = {"resources": {"limits": {"cpu": "3", "memory": "4Gi", "nvidia.com/gpu": "1"}}}
    (container,) = _made(task, memory="16Gi", image="mine:1")["containers"]
    assert container["image"] == "mine:1"
    assert container["resources"] == {
        "requests": {"memory": "16Gi"},
        "limits": {"cpu": "3", "memory": "16Gi", "nvidia.com/gpu": "1"},
    }, "a request of the template above the limit of the task would be refused"


def test_gpus_and_processors_are_asked_for() -> None:
    (container,) = _made(cpu="500m", gpus=2)["containers"]
    assert container["resources"]["requests"] == {
        "cpu": "500m",
        "memory": "8Gi",
        "nvidia.com/gpu": "2",
    }
    assert container["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": "2"}


def test_where_pods_may_run_comes_from_the_configuration_else_from_the_task() -> None:
    task = {
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "nodeSelector": {"zone": "1"},
        "affinity": {"nodeAffinity": {}},
    }
    made = _made(task)
    assert made["tolerations"] == task["tolerations"]
    assert made["nodeSelector"] == {"zone": "1"}
    assert made["affinity"] == {"nodeAffinity": {}}
    made = _made(task, tolerations=["gpu:NoSchedule"], node_selector=["zone=2"])
    assert made["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert made["nodeSelector"] == {"zone": "2"}


def test_what_the_task_brings_is_added_and_named_once() -> None:
    task = {
        "env": [{"name": "HELLO", "value": "1"}],
        "volumes": [{"name": "pvc", "persistentVolumeClaim": {"claimName": "x"}}],
        "volumeMounts": [{"name": "pvc", "mountPath": "/data"}],
    }
    made = _made(task)
    (container,) = made["containers"]
    assert container["env"] == task["env"]
    assert [one["name"] for one in made["volumes"]] == ["shm", "pvc"]
    assert [one["mountPath"] for one in container["volumeMounts"]] == ["/dev/shm", "/data"]


def test_a_task_config_of_kfp_is_understood_by_its_own_names_and_its_nones() -> None:
    task = {"resources": None, "env": None, "node_selector": {"a": "b"}, "volume_mounts": None}
    assert _made(task)["nodeSelector"] == {"a": "b"}


def test_shared_memory_priority_and_grace_are_set() -> None:
    made = _made(shm="7Gi", priority_class="high", grace_s=33)
    assert made["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "7Gi"}
    assert made["priorityClassName"] == "high"
    assert made["terminationGracePeriodSeconds"] == 33


@pytest.mark.parametrize(
    ("taint", "expected"),
    [
        ("key", {"key": "key", "operator": "Exists"}),
        ("key:NoExecute", {"key": "key", "operator": "Exists", "effect": "NoExecute"}),
        ("a=b", {"key": "a", "operator": "Equal", "value": "b"}),
        (
            "a=b:NoSchedule",
            {"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"},
        ),
    ],
)
def test_taints_are_read_as_kubectl_writes_them(taint: str, expected: dict[str, str]) -> None:
    assert toleration(taint) == expected


@pytest.mark.parametrize(
    ("cpu", "expected"), [("2", 2), ("2500m", 2), ("500m", 1), ("1.5", 1), ("0.1", 1)]
)
def test_parts_of_processors_do_not_count_but_there_is_one(cpu: str, expected: int) -> None:
    assert whole_processors(cpu) == expected
