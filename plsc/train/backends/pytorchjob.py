"""Ranks in the pods of a PyTorchJob of Kubeflow's training operator, made, followed, explained."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from plsc import storage
from plsc.cluster.adoption import wait_until_gone
from plsc.cluster.api import Api
from plsc.cluster.jobs import JobFailedError, JobRequest, run_to_end
from plsc.cluster.kinds import POD, PYTORCHJOB
from plsc.cluster.place import Place
from plsc.cluster.templates import read_template
from plsc.conf.schema import PipelineConfig
from plsc.doorway import index_uri
from plsc.errors import TrainError
from plsc.train import lease
from plsc.train.backends.job_manifest import CONTAINER, TEMPLATE, job_manifest
from plsc.train.backends.protocol import RankKilledError
from plsc.train.backends.ranks import show

__all__ = ["PyTorchJob", "job_request"]

log = logging.getLogger(__name__)

_SPEAKER = {"training.kubeflow.org/replica-type": "master"}
"""The pod of rank 0, whose log is passed on."""
_JOBS = 4
"""Jobs of one step: so often, less one, may the ranks miss their lease."""
_GONE_S = 90.0


class PyTorchJob:
    """Starts the ranks in pods of their own, or adopts those that an earlier try has started."""

    def __init__(self, task: Mapping[str, Any] | None = None) -> None:
        """Remember what KFP's task asks for its pods."""
        self._task = task

    def train(self, config: PipelineConfig, arguments: Sequence[str]) -> None:
        """Train in ``train.pods.count`` pods; see ``Backend``.

        As long as this goes on the ranks' lease is renewed. When a signal ends this process, the
        job goes with it if the whole run is being terminated; else it waits to be adopted. A job
        that has succeeded without an end of the training (its ranks missed the lease, perhaps of
        an earlier try) is replaced by another, which goes on from the newest checkpoint.

        Raises:
            RankKilledError: If the job failed before its ranks ran; says which pod, and why.
            TrainError: If it failed later, or several jobs stopped for want of the lease.
            ConfigError: If it cannot be made of this configuration.
            ClusterError: If Kubernetes refuses, or cannot be reached.
            SystemExit: If a signal asked this process to end.
        """
        request = job_request(config, arguments, self._task)
        api = Api.connect()
        uri = lease.lease_uri(config)
        with lease.kept(uri, config.train.lease_s):
            try:
                for _ in range(_JOBS):
                    run_to_end(api, Place.here(api), request, on_line=show)
                    if storage.exists(index_uri(config, "train")):
                        return
                    log.warning("its ranks stopped early, for want of the lease: another goes on")
                    _remove(api, request)
            except JobFailedError as error:
                kind = TrainError if error.has_started else RankKilledError
                raise kind(str(error)) from error
        raise TrainError(
            f"{_JOBS} jobs stopped before the end of the training: their ranks saw no renewal of"
            f" {uri} within train.lease_s={config.train.lease_s:g}: see whether both sides reach"
            " the store, or raise it"
        )


def _remove(api: Api, request: JobRequest) -> None:
    """Delete the job that has succeeded, and wait until its pods, whose names are fixed, are gone.

    Raises:
        ClusterError: If Kubernetes refuses, or they do not go.
    """
    api.delete(request.kind, request.name)

    def pods() -> list[str]:
        return [pod["metadata"]["name"] for pod in api.list(POD, labels=request.pod_labels)]

    wait_until_gone(pods, f"the pods of {request.name}", _GONE_S + request.pods.grace_s)


def job_request(
    config: PipelineConfig, arguments: Sequence[str], task: Mapping[str, Any] | None = None
) -> JobRequest:
    """Return the job that trains a run, with what is needed to follow it.

    Args:
        config: The run's configuration.
        arguments: Hydra overrides for the ranks.
        task: What KFP's task asks for its pods.

    Raises:
        ConfigError: As ``job_manifest``.
    """
    (template,) = read_template(TEMPLATE)
    return JobRequest(
        kind=PYTORCHJOB,
        manifest=job_manifest(template, config, arguments, task),
        step="train",
        part="",
        run_id=config.run_id,
        pods=config.train.pods,
        container=CONTAINER,
        speaker=_SPEAKER,
        report_uri=storage.join(config.store_uri, "runs", config.run_id, "train/failed-pods.txt"),
    )
