"""The river as a Kubeflow pipeline: a plain DAG of six tasks, whose gate is a task that fails.

::

    preprocess ─▶ train ─┬▶ evaluate ─▶ gate ─┐
                         └▶ export ───────────┴▶ deploy
"""

from kfp import dsl, kubernetes

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

_DESCRIPTION = """\
Train, verify and serve a classifier with very many classes: records in, a live endpoint out.

- **experiment**: a named configuration that ships with plsc.
- **overrides**: what differs from it, in one line: `train.epochs=20 train.optimizer.lr=0.2`.
- **data_uri**: folder of the records and verification sets; empty: the experiment's own.
- **resume_run**: a run whose newest checkpoint training goes on from; empty: start anew.
"""


def _place(task: dsl.PipelineTask, name: str, *, cpu: str, memory: str) -> dsl.PipelineTask:
    """Say how ``task`` is shown, what it asks of a node, and where it finds store and server."""
    task.set_display_name(name).set_cpu_request(cpu).set_memory_request(memory)
    kubernetes.use_secret_as_env(task, SECRET, {key: key for key in SECRET_KEYS})
    kubernetes.use_config_map_as_env(
        task, SETTINGS, {key: key for key in SETTINGS_KEYS}, optional=True
    )
    return task


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
    records = preprocess(**given)
    trained = train(**given, resume_run=resume_run, dataset=records.outputs["dataset"])
    verified = evaluate(**given, model=trained.outputs["model"])
    exported = export(**given, model=trained.outputs["model"])
    approved = gate(**given, results=verified.outputs["results"])
    served = deploy(**given, onnx=exported.outputs["onnx"]).after(approved)

    _place(records, "Preprocess", cpu="2", memory="4Gi")
    _place(trained, "Train", cpu="4", memory="16Gi").set_retry(2, backoff_duration="30s")
    _place(verified, "Evaluate", cpu="2", memory="8Gi")
    _place(exported, "Export", cpu="1", memory="8Gi")
    _place(approved, "Gate", cpu="100m", memory="512Mi").set_caching_options(enable_caching=False)
    _place(served, "Deploy", cpu="250m", memory="1Gi").set_caching_options(enable_caching=False)
