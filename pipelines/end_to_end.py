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


def _place(task: dsl.PipelineTask, name: str, *, cpu: str, memory: str) -> dsl.PipelineTask:
    """Say how ``task`` is shown, what it asks of a node, and where it finds store and server.

    What it asks for is little, so that all of it fits a laptop's cluster; ``<stage>.pods`` asks for
    more. A request is no limit.
    """
    task.set_display_name(name).set_cpu_request(cpu).set_memory_request(memory)
    kubernetes.use_secret_as_env(task, SECRET, {key: key for key in SECRET_KEYS})
    kubernetes.use_config_map_as_env(
        task, SETTINGS, {key: key for key in SETTINGS_KEYS}, optional=True
    )
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "scratch", "/tmp")  # noqa: S108  also under a read-only root
    return task


def _retry(task: dsl.PipelineTask, times: int) -> dsl.PipelineTask:
    """Try a failed step again: for steps that go on where they stopped, or come to the same.

    Not for the gate, whose verdict stands, nor for deploy, which has rolled back and says why.
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

    _retry(_place(records, "Preprocess", cpu="250m", memory="512Mi"), 1)
    _retry(_place(trained, "Train", cpu="250m", memory="1Gi"), 2)  # meant for the job's pods
    _retry(_place(verified, "Evaluate", cpu="250m", memory="1Gi"), 1)
    _retry(_place(exported, "Export", cpu="250m", memory="1Gi"), 1)
    _always_run(_place(approved, "Gate", cpu="50m", memory="256Mi"), timeout_s=_HOUR_S)
    _always_run(_place(served, "Deploy", cpu="100m", memory="512Mi"), timeout_s=2 * _HOUR_S)

    for task, image in ((records, "preprocess"), (trained, "train"), (verified, "evaluate")):
        task.set_env_variable(WORKER_IMAGE, images.ref(image))
    served.set_env_variable(TRITON_IMAGE, images.ref("triton"))
