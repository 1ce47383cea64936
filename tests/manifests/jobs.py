"""The jobs that the steps create, as the API server gets them."""

from typing import Any

from plsc import conf
from plsc.cluster import indexed_job
from plsc.cluster.indexed_job import SharedWork
from plsc.cluster.job_request import JobRequest
from plsc.cluster.kinds import JOB
from plsc.cluster.place import Place
from plsc.train.backends.pytorchjob import job_request

OWNER = {
    "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "plsc-abcde", "uid": "1",
    "blockOwnerDeletion": False,
}  # fmt: skip
PLACE = Place("plsc-abcde-system-container-impl-1", "kubeflow", OWNER)
RUN_ID = "0a1b2c3d-4e5f-6789-abcd-ef0123456789"


def training_job(*overrides: str, task: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the PyTorchJob of train."""
    config = conf.compose(
        "glyphs", f"run_id={RUN_ID}", "train.pods.image=plsc-train:0.1.0", *overrides
    )
    arguments = ["experiment=glyphs", f"run_id={RUN_ID}", *overrides]
    return job_request(config, arguments, task).object(PLACE)


def shared_job(step: str = "preprocess", part: str = "map", *overrides: str) -> dict[str, Any]:
    """Return the Indexed Job of a step that shares its work out."""
    given = ["count=2", f"image=plsc-{step}:0.1.0", "cpu=1", "memory=1Gi"]
    settings = [f"{step}.pods.{one}" for one in given]
    config = conf.compose("glyphs", f"run_id={RUN_ID}", *settings, *overrides)
    pods = getattr(config, step).pods
    work = SharedWork(
        step, part, RUN_ID, "1", pods, pods.count, ["python", "-m", "plsc"], "s3://plsc/work",
        "s3://plsc/report.txt", {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    manifest = indexed_job._manifest(work)
    return JobRequest(JOB, manifest, step, part, RUN_ID, pods, "worker", {}, "").object(PLACE)
