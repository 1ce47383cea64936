"""What the tests of ``run_to_end`` play: the controllers that make pods."""

from collections.abc import Callable
from typing import Any

from plsc.cluster.job_request import JobRequest
from plsc.cluster.jobs import JobFailedError
from tests.cluster_api.conftest import Running
from tests.kubernetes_api import KubernetesApi

Start = Callable[[JobRequest], Running]
_ROLE = "training.kubeflow.org/replica-type"
_INDEX = "batch.kubernetes.io/job-completion-index"


def make_pods(cluster: KubernetesApi) -> dict[str, Any]:
    """Make the pods of the training, and return the job."""
    job = cluster.one("pytorchjobs")
    for role in ("master", "worker"):
        labels = {_ROLE: role, "training.kubeflow.org/replica-index": "0"}
        cluster.pod(f"{role}-0", job, labels)
    return job


def make_index(cluster: KubernetesApi, name: str, index: int) -> None:
    """Make the pod of one index of the only job."""
    cluster.pod(name, cluster.one("jobs"), {_INDEX: str(index)})


def failed(run: Running) -> JobFailedError:
    """Wait for the end, which must be a failure of the job, and return it."""
    error = run.end()
    assert isinstance(error, JobFailedError), error
    return error
