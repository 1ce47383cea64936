"""What the code relies on in kfp.local, on the version that is pinned."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

from kfp.local import subprocess_task_handler
from kfp.local.orchestrator import task_executor

ROOT = Path(__file__).parents[2]

RIVER = """
from kfp import dsl


@dsl.component(base_image="plsc-train:0.1.0", install_kfp_package=False)
def make(
    run_id: str,
    made: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    roc: dsl.Output[dsl.ClassificationMetrics],
) -> str:
    def fill(path: str, metadata: dict, metrics: dict, roc: dict) -> None:
        open(path, "w").write("index")
        metadata.update(steps=7)
        metrics.update(accuracy=0.9)
        roc["confidenceMetrics"] = [
            {"confidenceThreshold": 0.5, "falsePositiveRate": 0.1, "recall": 0.8}
        ]

    fill(made.path, made.metadata, metrics.metadata, roc.metadata)
    return run_id


@dsl.component(base_image="plsc-train:0.1.0", install_kfp_package=False)
def judge(said: str, made: dsl.Input[dsl.Model]) -> None:
    raise SystemExit(0 if made.metadata["steps"] == 7 and said.isdigit() else 3)


@dsl.component(base_image="plsc-train:0.1.0", install_kfp_package=False)
def fail() -> None:
    raise SystemExit(3)


@dsl.component(base_image="plsc-train:0.1.0", install_kfp_package=False)
def after() -> None:
    print("[after] reached")


@dsl.pipeline(name="contract")
def contract() -> None:
    made = make(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    judged = judge(said=made.outputs["Output"], made=made.outputs["made"]).set_display_name("Judge")
    failed = fail().after(judged).set_cpu_request("2").set_retry(3)
    after().after(failed)
"""


def test_metadata_filled_in_place_reaches_the_outputs_and_a_failure_stops_the_rest(
    tmp_path: Path,
) -> None:
    (tmp_path / "contract.py").write_text(RIVER)
    ran = subprocess.run(
        [sys.executable, "-m", "pipelines.local", "contract:contract", tmp_path / "root", "{}"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{tmp_path}", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "Warning" not in ran.stderr, "what only a cluster heeds is no news"
    assert ran.stdout.count('"returncode": 3') == 1, "the failed task is not tried again"
    assert "[after] reached" not in ran.stdout
    (made,) = (tmp_path / "root").glob("*/make/executor_output.json")
    artifacts = json.loads(made.read_text())["artifacts"]
    metadata = {name: held["artifacts"][0]["metadata"] for name, held in artifacts.items()}
    assert metadata["made"] == {"steps": 7}
    assert metadata["metrics"] == {"accuracy": 0.9}
    assert metadata["roc"]["confidenceMetrics"][0]["recall"] == 0.8


def test_the_function_that_runs_a_task_is_still_the_one_that_we_replace() -> None:
    found = inspect.signature(subprocess_task_handler.run_local_subprocess)
    assert list(found.parameters) == ["full_command", "env_vars"]
    handler = inspect.getsource(subprocess_task_handler.SubprocessTaskHandler.run)
    assert "run_local_subprocess(" in handler
    assert "set_retry" not in handler
    assert "max_retry_count" in inspect.getsource(task_executor.execute_single_task)
