"""The PyTorchJob of a training, as a pure function of template, configuration and KFP's task.

The world size is fixed, since the classes are sharded over the ranks: one Master, Workers, plain
torchrun, which the operator tells its place by ``PET_*``. A container that fails is started again
in its pod and goes on from the newest checkpoint, together with all others.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from plsc.cluster.pods import pod_settings
from plsc.conf.schema import PipelineConfig
from plsc.doorway import assign
from plsc.errors import ConfigError
from plsc.train.backends.ranks import ENVIRONMENT
from plsc.train.lease import LEASE_URI, lease_uri

__all__ = ["CONTAINER", "TEMPLATE", "job_manifest"]

TEMPLATE = "train/pytorchjob.yaml"
CONTAINER = "pytorch"
"""The name that the operator asks for."""

_GPU = "nvidia.com/gpu"
_FAREWELL_S = 10
"""What torchrun and the kubelet keep of the grace time for themselves."""
_PULL_S = 900
"""How much longer than a pod may be stuck torchrun waits for its peers: images take their time."""


def job_manifest(
    template: Mapping[str, Any],
    config: PipelineConfig,
    arguments: Sequence[str],
    task: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the PyTorchJob, complete except for its name, labels (its queue too) and owner.

    Args:
        template: ``manifests/base/train/pytorchjob.yaml``. Not changed.
        config: The run's configuration.
        arguments: Hydra overrides for the ranks. They compose in another environment than this
            process's, so what the environment may set here is added to them.
        task: What KFP's task asks for its pods, if there is one; the configuration wins over it.

    Raises:
        ConfigError: If there is no image, or fewer GPUs in a pod than ranks.
    """
    pods = config.train.pods
    _check_image(pods.image)
    job = copy.deepcopy(dict(template))
    replicas = job["spec"]["pytorchReplicaSpecs"]
    pod = copy.deepcopy(replicas["Master"]["template"])
    pod["spec"] = pod_settings(pod["spec"], pods, task)
    container = _container(pod["spec"])
    overrides = [*arguments, assign("store_uri", config.store_uri)]
    container["args"] = [_literal(argument) for argument in overrides]
    container["env"] = _environment(container.get("env", []), config)
    _check_gpus(container, config)
    counts = {"Master": 1, "Worker": pods.count - 1}
    job["spec"]["pytorchReplicaSpecs"] = {
        role: copy.deepcopy(
            {**replicas[role], "replicas": count, "restartPolicy": "OnFailure", "template": pod}
        )
        for role, count in counts.items()
        if count
    }
    job["spec"]["nprocPerNode"] = str(config.train.ranks // pods.count)
    job["spec"]["runPolicy"] = {
        **job["spec"].get("runPolicy", {}),
        "cleanPodPolicy": "None",  # their logs say why it failed
        "ttlSecondsAfterFinished": pods.keep_s,
        "activeDeadlineSeconds": pods.deadline_s,
        # The operator adds up the restarts of all pods; the one that reaches this fails the job.
        "backoffLimit": pods.max_restarts * pods.count + 1,
    }
    return job


def _container(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the container of ``spec`` that trains, to be changed."""
    found: list[dict[str, Any]] = [c for c in spec["containers"] if c["name"] == CONTAINER]
    (container,) = found
    return container


def _environment(given: Sequence[dict[str, Any]], config: PipelineConfig) -> list[dict[str, Any]]:
    """Return ``given``, with what the ranks need and no variable named twice."""
    pods = config.train.pods
    needed = ENVIRONMENT | {
        LEASE_URI: _literal(lease_uri(config)),
        # How long torchrun waits for ranks that were asked to end, before it kills them.
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(1, pods.grace_s - _FAREWELL_S)),
        # How long torchrun waits for the other pods: the launcher gives up first, and says why.
        "PET_RDZV_CONF": f"timeout={int(pods.schedule_timeout_s + pods.image_timeout_s) + _PULL_S}",
    }
    others = [variable for variable in given if variable["name"] not in needed]
    return [*others, *({"name": name, "value": value} for name, value in needed.items())]


def _literal(text: str) -> str:
    """Return ``text`` so that Kubernetes expands no ``$(NAME)`` in it."""
    return text.replace("$", "$$")


def _check_image(image: str) -> None:
    if not image:
        raise ConfigError(
            "train.pods.image is empty: expected the image of plsc-train with its registry and tag,"
            " which the compiled pipeline gives in the variable PLSC_WORKER_IMAGE: set one of them"
        )


def _check_gpus(container: Mapping[str, Any], config: PipelineConfig) -> None:
    gpus = container.get("resources", {}).get("limits", {}).get(_GPU)
    ranks = config.train.ranks // config.train.pods.count
    if gpus is not None and int(gpus) < ranks:
        raise ConfigError(
            f"a pod has {gpus} GPU(s) for {ranks} ranks: expected one for each; set train.pods.gpus"
            f"={ranks}, or train.pods.count={config.train.ranks // max(1, int(gpus))}"
        )
