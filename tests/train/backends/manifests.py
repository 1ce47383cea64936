"""PyTorchJobs as a launcher makes them for several configurations; others validate them too."""

from collections.abc import Iterator
from typing import Any

from plsc.cluster.place import Place
from plsc.conf import compose
from plsc.conf.schema import PipelineConfig
from plsc.train.backends.pytorchjob import job_request

ARGUMENTS = ["experiment=tiny", 'run_id="r1"', "train.epochs=2"]
IMAGE = "plsc-train:0.1.0"
OWNER = {
    "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "plsc-abcde",
    "uid": "0a1b2c3d-0000-4000-8000-000000000000", "blockOwnerDeletion": False,
}  # fmt: skip
TASK = {
    "resources": {"limits": {"nvidia.com/gpu": "4", "memory": "64Gi"}, "requests": {"cpu": "16"}},
    "env": [
        {"name": "S3_ENDPOINT", "valueFrom": {"secretKeyRef": {"name": "s", "key": "S3_ENDPOINT"}}}
    ],
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "node_selector": {"pool": "gpu"},
    "affinity": None,
    "volumes": [{"name": "scratch", "emptyDir": {}}],
    "volume_mounts": [{"name": "scratch", "mountPath": "/scratch"}],
}
"""What kfp's TaskConfig holds, as a component hands it on."""


def configured(*overrides: str) -> PipelineConfig:
    """Return the tiny experiment as run r1, for pods."""
    return compose("tiny", "run_id=r1", "store_uri=s3://b", f"train.pods.image={IMAGE}", *overrides)


def sample_jobs() -> Iterator[dict[str, Any]]:
    """Yield PyTorchJobs as they are sent to Kubernetes, of every shape there is."""
    place = Place("launcher-0", "plsc", OWNER)
    for overrides, task in (
        ((), None),
        (("train.ranks=4", "train.pods.count=2"), TASK),
        (("train.ranks=8", "train.pods.count=4", "train.pods.gpus=2"), TASK),
        (
            (
                "train.pods.cpu=500m", "train.pods.memory=1Gi", "train.pods.priority_class=low",
                "train.pods.queue=faces", "train.pods.node_selector=['a/b=c']",
                "train.pods.tolerations=['x=y:NoExecute',z]", "train.pods.shm=64Mi",
            ),
            TASK,
        ),
    ):  # fmt: skip
        yield job_request(configured(*overrides), ARGUMENTS, task).object(place)
