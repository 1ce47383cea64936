"""Which backend a run trains with."""

from collections.abc import Mapping
from typing import Any

from plsc.cluster import is_in_cluster
from plsc.conf.schema import PipelineConfig, TrainingBackend
from plsc.train.backends.protocol import Backend
from plsc.train.backends.torchrun import Torchrun

__all__ = ["chosen"]


def chosen(config: PipelineConfig, task: Mapping[str, Any] | None) -> Backend:
    """Return the backend of ``train.backend``; ``auto`` is a PyTorchJob on a cluster.

    Args:
        config: The run's configuration.
        task: What KFP's task asks for its pods (``plsc.cluster.pods``), if there is one.
    """
    backend = config.train.backend
    if backend is TrainingBackend.auto:
        is_job = is_in_cluster()
        backend = TrainingBackend.pytorchjob if is_job else TrainingBackend.torchrun
    if backend is TrainingBackend.torchrun:
        return Torchrun()
    from plsc.train.backends.pytorchjob import PyTorchJob  # noqa: PLC0415  needs kubernetes

    return PyTorchJob(task)
