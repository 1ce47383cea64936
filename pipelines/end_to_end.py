"""The river as a Kubeflow pipeline: a plain DAG of six tasks, whose gate is a task that fails.

::

    preprocess ─▶ train ─┬▶ evaluate ─▶ gate ─┐
                         └▶ export ───────────┴▶ deploy
"""

from kfp import dsl, kubernetes

from components import images
from components.deploy.component import deploy
from components.evaluate.component import evaluate
from components.evaluate.gate import gate
from components.export.component import export
from components.preprocess.component import preprocess
from components.train.component import train

__all__ = ["end_to_end"]

SECRET = "plsc-object-store"  # noqa: S105  the name of a Secret, not one
SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3_ENDPOINT")
SETTINGS = "plsc-settings"
SETTINGS_KEYS = ("PLSC_STORE_URI", "PLSC_TRITON_URL")

WORKER_IMAGE = "PLSC_WORKER_IMAGE"
"""Variable of a step that may start a job: the image of the job's pods."""
TRITON_IMAGE = "PLSC_TRITON_IMAGE"
"""Variable of deploy: the image of the server."""

RUN_ID = "PLSC_RUN_ID"
RUN_LABEL = "metadata.labels['pipeline/runid']"
"""Where KFP notes a pod's run: preprocess learns it from there, past the cache's key."""

_HOUR_S = 3600

_DESCRIPTION = """\
Train, verify and serve a classifier with very many classes: records in, a live endpoint out.

- **experiment**: a named configuration that ships with plsc.
- **overrides**: what differs from it, in one line: `train.epochs=20 train.optimizer.lr=0.2`.
- **data_uri**: folder of the records and verification sets; empty: the experiment's own.
- **resume_run**: a run whose newest checkpoint training goes on from; empty: start anew.
"""


def _place(task: dsl.PipelineTask, name: str) -> dsl.PipelineTask:
    """Say how ``task`` is shown, and where it finds store and server."""
    task.set_display_name(name)
    kubernetes.use_secret_as_env(task, SECRET, {key: key for key in SECRET_KEYS})
    kubernetes.use_config_map_as_env(
        task, SETTINGS, {key: key for key in SETTINGS_KEYS}, optional=True
    )
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "scratch", "/tmp")  # noqa: S108  also under a read-only root
    return task


def _size(
    task: dsl.PipelineTask, *, cpu: tuple[str, str], memory: tuple[str, str]
) -> dsl.PipelineTask:
    """Say what ``task`` asks of a node, and what it may take of it at most; empty: anything.

    What it asks for is little, so that all of it fits a laptop's cluster; ``<stage>.pods`` asks for
    more. A step starts as many threads and processes as it may use processors: without a limit
    those of the whole node.
    """
    task.set_cpu_request(cpu[0]).set_memory_request(memory[0]).set_memory_limit(memory[1])
    return task.set_cpu_limit(cpu[1]) if cpu[1] else task


def _retry(task: dsl.PipelineTask, times: int) -> dsl.PipelineTask:
    """Start a step again whose pod was lost: with its node, by eviction, or deleted.

    A step that fails with an exit code is not tried again, whatever is set here: KFP 2.17 retries
    errors of the cluster alone. What may pass by itself is tried again inside the steps: requests
    to the store, and the pods of a job. Gate and deploy get KFP's own retries of lost pods.
    """
    return task.set_retry(times, backoff_duration="30s", backoff_factor=2.0)


def _always_run(task: dsl.PipelineTask, *, timeout_s: int) -> dsl.PipelineTask:
    """Never take the result of an earlier run, and end the step after ``timeout_s``."""
    kubernetes.set_timeout(task, timeout_s)
    return task.set_caching_options(enable_caching=False)


@dsl.pipeline(name="plsc", display_name="plsc", description=_DESCRIPTION)
def end_to_end(
    experiment: str = "glyphs",
    overrides: str = "",
    data_uri: str = "",
    resume_run: str = "",
) -> None:
    """From raw records to a live endpoint."""
    given = {
        "experiment": experiment,
        "overrides": overrides,
        "data_uri": data_uri,
        "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER,  # bare: the cluster resolves it nowhere else
    }
    records = preprocess(**given | {"run_id": ""})  # else it is never found in KFP's cache
    kubernetes.use_field_path_as_env(records, RUN_ID, RUN_LABEL)
    trained = train(**given, resume_run=resume_run, dataset=records.outputs["dataset"])
    verified = evaluate(**given, model=trained.outputs["model"])
    exported = export(**given, model=trained.outputs["model"])
    approved = gate(**given, results=verified.outputs["results"])
    served = deploy(**given, onnx=exported.outputs["onnx"]).after(approved)

    _size(_place(records, "Preprocess"), cpu=("250m", "4"), memory=("512Mi", "8Gi"))
    _size(_place(trained, "Train"), cpu=("250m", ""), memory=("1Gi", "8Gi"))  # of the job's pods
    _size(_place(verified, "Evaluate"), cpu=("250m", "4"), memory=("1Gi", "16Gi"))
    _size(_place(exported, "Export"), cpu=("250m", "2"), memory=("1Gi", "16Gi"))
    _size(_place(approved, "Gate"), cpu=("50m", "1"), memory=("256Mi", "1Gi"))
    _size(_place(served, "Deploy"), cpu=("100m", "1"), memory=("512Mi", "4Gi"))

    for task, times in ((records, 1), (trained, 2), (verified, 1), (exported, 1)):
        _retry(task, times)
    _always_run(approved, timeout_s=_HOUR_S)
    _always_run(served, timeout_s=2 * _HOUR_S)

    for task, image in ((records, "preprocess"), (trained, "train"), (verified, "evaluate")):
        task.set_env_variable(WORKER_IMAGE, images.ref(image))
    served.set_env_variable(TRITON_IMAGE, images.ref("triton"))
