"""The Kubernetes manifests that plsc fills in: the same files that kustomize reads."""

import os
from pathlib import Path
from typing import Any

import yaml

from plsc.errors import ClusterError

__all__ = ["MANIFESTS", "manifests_path", "read_template"]

MANIFESTS = "PLSC_MANIFESTS"
"""Environment variable that names the folder ``manifests/base``; the images set it."""


def manifests_path() -> Path:
    """Return the folder of the templates: that of the variable, else ``manifests/base`` here."""
    given = os.environ.get(MANIFESTS)
    return Path(given) if given else Path(__file__).parents[2] / "manifests" / "base"


def read_template(name: str) -> list[dict[str, Any]]:
    """Return the objects of one template; the caller may change them.

    Args:
        name: Path within ``manifests/base``: ``train/pytorchjob.yaml``.

    Raises:
        ClusterError: If there is no such file, or it holds something else than objects.
    """
    path = manifests_path() / name
    try:
        # Anchors of the file become one shared object each, so every document is made anew.
        documents = [_unshared(one) for one in yaml.safe_load_all(path.read_text("utf-8")) if one]
    except OSError as error:
        raise ClusterError(
            f"no template {path} ({error.strerror}): set {MANIFESTS} to the folder manifests/base"
        ) from error
    except yaml.YAMLError as error:
        raise ClusterError(f"the template {path} is no YAML: {error}") from error
    for document in documents:
        if not isinstance(document, dict) or not {"apiVersion", "kind"} <= document.keys():
            raise ClusterError(f"the template {path} holds something that is no Kubernetes object")
    return documents


def _unshared(value: Any) -> Any:
    """Return a copy in which no two places hold the same object; ``deepcopy`` would keep that."""
    if isinstance(value, dict):
        return {key: _unshared(one) for key, one in value.items()}
    return [_unshared(one) for one in value] if isinstance(value, list) else value
