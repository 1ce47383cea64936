"""Runs the compiled pipeline on a Kubeflow cluster: upload as a version, start, wait for the end.

The cluster comes from the environment: ``KFP_HOST`` (and, where it asks for them,
``KFP_NAMESPACE``, ``KFP_TOKEN`` and ``KFP_CA_CERT``).
"""

import os
import time
from pathlib import Path
from typing import Any

import kfp
from rich.console import Console
from rich.text import Text

__all__ = ["connect", "submit"]

_NAME = "plsc"
_LONGEST_RUN_S = 30 * 24 * 3600


def connect() -> kfp.Client:
    """Return a client of the cluster that the environment names."""
    return kfp.Client(
        host=os.environ["KFP_HOST"],
        namespace=os.environ.get("KFP_NAMESPACE", "kubeflow"),
        existing_token=os.environ.get("KFP_TOKEN"),
        ssl_ca_cert=os.environ.get("KFP_CA_CERT"),
    )


def submit(client: Any, compiled: Path, arguments: dict[str, str], console: Console) -> int:
    """Run ``compiled`` with ``arguments`` and return 0 when it succeeded, else 1.

    Args:
        client: A ``kfp.Client``.
        compiled: The compiled pipeline; its images must be in a registry that the cluster reads.
        arguments: The pipeline's parameters.
        console: Shows the run's address and end.
    """
    name = f"{arguments['experiment']}-{time.strftime('%Y%m%d-%H%M%S')}"
    pipeline_id, version_id = _upload(client, compiled, name)
    experiment = client.create_experiment(_NAME)
    run = client.run_pipeline(
        experiment_id=experiment.experiment_id,
        job_name=name,
        pipeline_id=pipeline_id,
        version_id=version_id,
        params=arguments,
    )
    console.print(
        Text(f"run {run.run_id}: {os.environ['KFP_HOST'].rstrip('/')}/#/runs/details/{run.run_id}")
    )
    ended = client.wait_for_run_completion(run.run_id, timeout=_LONGEST_RUN_S)
    console.print(Text(f"run {run.run_id}: {ended.state}"), soft_wrap=True)
    return 0 if ended.state == "SUCCEEDED" else 1


def _upload(client: Any, compiled: Path, version_name: str) -> tuple[str, str]:
    """Upload the pipeline as a new version, so that the UI's form has it; return both ids."""
    pipeline_id = client.get_pipeline_id(_NAME)
    if pipeline_id is None:
        pipeline_id = client.upload_pipeline(str(compiled), pipeline_name=_NAME).pipeline_id
    version = client.upload_pipeline_version(
        str(compiled), pipeline_version_name=version_name, pipeline_id=pipeline_id
    )
    return pipeline_id, version.pipeline_version_id
