"""The manifests as files, and as kustomize renders them."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAYS = ("overlays/kind", "overlays/production", "overlays/production/namespace")
TEMPLATES = ("base/train/pytorchjob.yaml", "base/preprocess/indexed-job.yaml")
"""What the steps read and create; no kustomization holds them."""


def read(name: str) -> list[dict[str, Any]]:
    """Return the objects of a file below ``manifests/``."""
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


def render(folder: str) -> list[dict[str, Any]]:
    """Return the objects of a kustomization below ``manifests/``; skips without kubectl."""
    return list(yaml.safe_load_all(_rendered(str(MANIFESTS / folder))))


def render_with(
    resources: Sequence[str], components: Sequence[str] = (), **more: Any
) -> list[dict[str, Any]]:
    """Return the objects of a kustomization that somebody makes of ours."""
    with tempfile.TemporaryDirectory() as folder:

        def beside(names: Sequence[str]) -> list[str]:
            return [os.path.relpath(MANIFESTS / name, Path(folder).resolve()) for name in names]

        kustomization = {"resources": beside(resources), "components": beside(components)} | more
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return list(yaml.safe_load_all(_rendered(folder)))


@functools.cache
def _rendered(folder: str) -> str:
    beside = Path(sys.executable).parent / "kubectl"
    kubectl = str(beside) if beside.is_file() else shutil.which("kubectl")
    if kubectl is None:
        pytest.skip(
            "NOT RENDERED: no kubectl beside Python or on PATH, which kustomize is a part of"
        )
    done = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # a warning: something is deprecated
    return done.stdout


def of_kind(objects: Sequence[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """Return the one object of that kind (and name)."""
    (found,) = (
        one
        for one in objects
        if one["kind"] == kind and (not name or one["metadata"]["name"] == name)
    )
    return found


def pod_templates(objects: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the pod template of every object that has one, or several, with the object's name."""
    for one in objects:
        name = f"{one['kind']} {one.get('metadata', {}).get('name')}"
        if one["kind"] == "PyTorchJob":
            for role, replica in one["spec"]["pytorchReplicaSpecs"].items():
                yield f"{name} {role}", replica["template"]
        elif one["kind"] in {"Deployment", "Job"}:
            yield name, one["spec"]["template"]
