"""What training-operator 1.9.4 refuses: its schema, with unknown fields refused, and its webhook.

The API server drops unknown fields in silence: a misspelled one is a setting that never holds.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

__all__ = ["problems"]

_SCHEMA = Path(__file__).parent / "pytorchjob-schema.yaml"
_DNS_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_LONGEST = 63
"""Of the name of a pod's Service, which is the job's with ``-worker-<number>``."""


def problems(job: Mapping[str, Any]) -> list[str]:
    """Return why the operator would refuse ``job``, or not do what it says."""
    errors = sorted(_validator().iter_errors(job), key=lambda error: error.json_path)
    return [f"{error.json_path}: {error.message}" for error in errors] + list(_refused(job))


@functools.cache
def _validator() -> Draft202012Validator:
    schema = yaml.safe_load(_SCHEMA.read_text())
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return Draft202012Validator(_strict(schema))


def _strict(schema: Any) -> Any:
    """Return ``schema`` as JSON Schema that refuses fields it does not name."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if "properties" in strict and strict.get("type") == "object":
        strict["additionalProperties"] = False
    if strict.pop("x-kubernetes-int-or-string", False):
        strict.pop("type", None)
        strict["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return strict


def _refused(job: Mapping[str, Any]) -> Iterator[str]:
    """Yield what pkg/webhooks/pytorch/pytorchjob_webhook.go and webhooks.go (util) refuse."""
    spec = job["spec"]
    replicas = spec.get("pytorchReplicaSpecs") or {}
    name = job["metadata"].get("name", "")
    if not re.fullmatch(_DNS_1035, name):
        yield f"metadata.name {name!r} is no DNS-1035 label"
    workers = replicas.get("Worker", {}).get("replicas", 1)
    if len(f"{name}-worker-{workers - 1}") > _LONGEST:
        yield f"metadata.name {name!r} is too long for its pods' Services"
    if not replicas:
        yield "pytorchReplicaSpecs is required"
    if replicas.keys() - {"Master", "Worker"}:
        yield f"replicas {sorted(replicas)}: only Master and Worker are known"
    for role, replica in replicas.items():
        yield from _refused_replica(role, replica)
    if "elasticPolicy" in spec and "Worker" not in replicas:
        yield "elasticPolicy without Worker"
    if spec.get("runPolicy", {}).get("managedBy", "kubeflow.org/training-operator") not in {
        "kubeflow.org/training-operator",
        "kueue.x-k8s.io/multikueue",
    }:
        yield "runPolicy.managedBy is unknown"


def _refused_replica(role: str, replica: Mapping[str, Any]) -> Iterator[str]:
    count = replica.get("replicas")
    if (role == "Master" and count != 1) or (count is not None and count < 1):
        yield f"{role}.replicas is {count}"
    containers = replica["template"]["spec"].get("containers", [])
    if not all(container.get("image") for container in containers):
        yield f"{role}: a container without an image"
    if "pytorch" not in [container["name"] for container in containers]:
        yield f"{role}: no container is named pytorch"
