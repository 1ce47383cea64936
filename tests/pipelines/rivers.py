"""Small pipelines with the parameters of ours, for tests of everything around the steps."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def first(experiment: str, overrides: str, run_id: str, seen: dsl.Output[dsl.Dataset]) -> None:
    import os
    import pathlib
    import tempfile

    from plsc.conf import compose, split_overrides

    print(f"[first] experiment {experiment}")
    print("not meant for people")
    seen.metadata.update(count=3)
    config = compose(experiment, *split_overrides(overrides))
    pathlib.Path(seen.path).write_text(
        f"{config.run_id} {run_id} {tempfile.mkdtemp()} {os.environ.get('MARK', '')}"
    )


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def second(
    experiment: str, overrides: str, data_uri: str, resume_run: str, seen: dsl.Input[dsl.Dataset]
) -> None:
    import importlib
    import pathlib
    import sys

    print(
        f"[second] {pathlib.Path(seen.path).read_text()} count {seen.metadata['count']}", flush=True
    )
    sys.path.insert(0, data_uri)
    importlib.import_module("act").act(experiment, overrides)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def third() -> None:
    print("[third] reached")


@dsl.pipeline(name="river")
def river(
    experiment: str = "tiny", overrides: str = "", data_uri: str = "", resume_run: str = ""
) -> None:
    """Three steps; the second does what ``<data_uri>/act.py`` says."""
    a = first(experiment=experiment, overrides=overrides, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    b = second(
        experiment=experiment,
        overrides=overrides,
        data_uri=data_uri,
        resume_run=resume_run,
        seen=a.outputs["seen"],
    )
    b.set_retry(2, backoff_duration="30s")
    third().after(b)
