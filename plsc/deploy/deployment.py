"""The Deployment that serves on a cluster: applied, never by force, and awaited."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from plsc.cluster.api import Api, ConflictError
from plsc.cluster.kinds import DEPLOYMENT, POD, SERVICE, Kind
from plsc.cluster.templates import read_template
from plsc.deploy.trouble import is_hopeless, is_ready, last_words, troubles
from plsc.errors import ConfigError, DeployError

__all__ = ["await_rollout", "bring_up", "pods_of"]

log = logging.getLogger(__name__)

_TEMPLATE = "deploy/triton.yaml"
_MANAGER = "plsc-deploy"
_POLL_S = 1.0
_BACK_OFF_S = 300.0
"""The longest pause of the kubelet before it starts again a container that did not stay alive."""


def bring_up(api: Api, *, image: str, timeout_s: float) -> str:
    """Apply Triton's Deployment and Service, wait for the pods, and return the Deployment's name.

    Where one is there that somebody else manages, it stays as it is. If none of its pods serves,
    they found no repository perhaps, which there is now: their liveness probe has them started
    again, and the kubelet's pause before that is added to the time.

    Args:
        api: The cluster.
        image: Triton's image; may be empty where a Deployment is there.
        timeout_s: Longest wait for the pods.

    Raises:
        ConfigError: If there is neither a Deployment nor an image.
        DeployError: If no pod gets ready in time; with the reason.
        ClusterError: If the cluster refuses.
    """
    manifests = {manifest["kind"]: manifest for manifest in read_template(_TEMPLATE)}
    name = str(manifests["Deployment"]["metadata"]["name"])
    found = api.get(DEPLOYMENT, name)
    if image:
        _apply(api, DEPLOYMENT, _with_image(manifests["Deployment"], image))
        _apply(api, SERVICE, manifests["Service"])
    elif found is None:
        raise ConfigError(
            f"deploy.image is empty, and there is no Deployment {name} in namespace"
            f" {api.namespace}: set it (the variable PLSC_TRITON_IMAGE), or apply the manifests"
        )
    if found is not None and not found.get("status", {}).get("availableReplicas"):
        timeout_s += _BACK_OFF_S
    await_rollout(api, name, timeout_s=timeout_s)
    return name


def await_rollout(api: Api, name: str, *, timeout_s: float) -> None:
    """Wait until every pod of a Deployment is what its template says, and ready.

    When the time is over and only further pods are missing, of which an autoscaler may want more
    than there is room for, those that are ready will do.

    Raises:
        DeployError: If they are not ready in time, the Deployment vanishes or has no pods.
        ClusterError: If the cluster refuses.
    """
    deadline = time.monotonic() + timeout_s
    told = ""
    while True:
        deployment = _found(api, name)
        wanted, updated, available, others = _counts(deployment)
        if updated == available == wanted and not others:
            return
        waiting = [pod for pod in pods_of(api, deployment) if not is_ready(pod)]
        state = f"Deployment {name}: {available} of {wanted} pods are ready"
        state += f", {others} of them to be replaced" if others else ""
        state += "".join(f"; {one}" for pod in waiting for one in troubles(pod))
        if state != told:
            log.info("%s", state)
            told = state
        is_over = time.monotonic() > deadline
        if is_over and updated and available and not others:
            log.warning("after %g s: going on with the pods that are ready", timeout_s)
            return
        if is_over or any(is_hopeless(pod) for pod in waiting):
            raise DeployError(
                f"{state}; waiting ends after {timeout_s:g} s (deploy.timeout_s); see"
                f" kubectl -n {api.namespace} describe deployment {name}{_last_words(api, waiting)}"
            )
        time.sleep(_POLL_S)


def pods_of(api: Api, deployment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a Deployment's pods, but for those that are about to go.

    Raises:
        ClusterError: If the cluster refuses.
    """
    labels = deployment["spec"]["selector"]["matchLabels"]
    return [
        pod for pod in api.list(POD, labels=labels) if not pod["metadata"].get("deletionTimestamp")
    ]


def _with_image(manifest: dict[str, Any], image: str) -> dict[str, Any]:
    """Return the template with its image, and without what an autoscaler sets."""
    spec = {key: value for key, value in manifest["spec"].items() if key != "replicas"}
    pod_spec = spec["template"]["spec"]
    containers = [container | {"image": image} for container in pod_spec["containers"]]
    template = spec["template"] | {"spec": pod_spec | {"containers": containers}}
    return manifest | {"spec": spec | {"template": template}}


def _apply(api: Api, kind: Kind, manifest: dict[str, Any]) -> None:
    """Apply an object, or leave it as it is where its fields are somebody else's."""
    name = manifest["metadata"]["name"]
    try:
        api.apply(kind, manifest, manager=_MANAGER)
    except ConflictError as error:
        log.info("%s %s is managed by somebody else and stays as it is: %s", kind.name, name, error)
    else:
        log.info("%s %s applied", kind.name, name)


def _counts(deployment: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return how many pods are wanted, made by the newest template, available, and others."""
    status = deployment.get("status", {})
    wanted = int(deployment["spec"].get("replicas", 1))
    is_seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    updated = int(status.get("updatedReplicas", 0)) if is_seen else 0
    return (
        wanted,
        updated,
        int(status.get("availableReplicas", 0)),
        int(status.get("replicas", 0)) - updated,
    )


def _found(api: Api, name: str) -> dict[str, Any]:
    deployment = api.get(DEPLOYMENT, name)
    if deployment is None:
        raise DeployError(f"Deployment {name} was deleted meanwhile: deploy again")
    if not deployment["spec"].get("replicas", 1):
        raise DeployError(
            f"Deployment {name} has no replicas: kubectl -n {api.namespace} scale deployment"
            f" {name} --replicas=1"
        )
    return deployment


def _last_words(api: Api, pods: list[dict[str, Any]]) -> str:
    told = {pod["metadata"]["name"]: last_words(api, pod) for pod in pods[:3]}
    return "".join(f"\n  {name} said:{words}" for name, words in told.items() if words)
