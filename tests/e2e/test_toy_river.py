"""The whole river on the experiment ``tiny``, through the command that a user types."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines import services
from plsc.stages import STEPS

ROOT = Path(__file__).parents[2]
BENCHMARKS = {"glyph_cross", "glyph_slant", "glyph_rough"}

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]


class River:
    """Runs in one state folder, with servers of its own."""

    def __init__(self, state_path: Path) -> None:
        self.state_path = state_path

    def run(self, *arguments: str) -> tuple[int, str]:
        passed_on = {"PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START", "COVERAGE_FILE"}
        environment = {name: value for name, value in os.environ.items() if name in passed_on}
        command = ["-m", "pipelines", "run", "--experiment", "tiny", *arguments]
        ended = subprocess.run(
            [sys.executable, *command, "--state-dir", self.state_path],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return ended.returncode, ended.stdout

    def last_run(self) -> dict[str, Any]:
        return json.loads((self.state_path / "last-run.json").read_text())

    def processes(self) -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter(["cwd"])
            if str(process.info["cwd"]).startswith(str(self.state_path))
        ]


@pytest.fixture(scope="module")
def river(tmp_path_factory: pytest.TempPathFactory) -> Iterator[River]:
    if not services.triton.ENVIRONMENT_PATH.is_dir():
        pytest.skip(f"no {services.triton.ENVIRONMENT_PATH}: make it with `make install`")
    river = River(tmp_path_factory.mktemp("river") / "state")
    yield river
    services.down(river.state_path)
    assert not river.processes(), "the servers' processes are gone"


@pytest.fixture(scope="module")
def first(river: River) -> tuple[dict[str, Any], str]:
    """The outcome and the output of a first run."""
    code, output = river.run()
    assert code == 0, output
    return river.last_run(), output


def test_a_typo_ends_with_2_before_anything_is_started(tmp_path: Path) -> None:
    code, output = River(tmp_path / "state").run("--overrides", "trian.epochs=1")
    assert code == 2
    assert "trian" in output
    assert not (tmp_path / "state").exists()


def test_a_first_run_ends_with_a_served_model_and_its_figures(
    first: tuple[dict[str, Any], str], river: River
) -> None:
    found, output = first
    assert found.keys() == {
        *("run_id", "experiment", "status", "seconds"),
        *("stages", "train", "benchmarks", "export", "deploy"),
    }
    assert (found["experiment"], found["status"]) == ("tiny", "succeeded")
    assert found["stages"].keys() == set(STEPS)
    assert all(0 < stage["seconds"] < found["seconds"] for stage in found["stages"].values())
    assert found["train"].keys() == {"samples_per_s", "ranks", "classes", "steps"}
    assert (found["train"]["ranks"], found["train"]["steps"]) == (2, 240)
    assert found["train"]["samples_per_s"] > 0
    assert found["benchmarks"].keys() == BENCHMARKS
    for result in found["benchmarks"].values():
        assert result.keys() == {"accuracy", "accuracy_std", "tar_at_far"}
        assert result["accuracy"] > 0.6, "a trained model is no coin toss"
        assert result["tar_at_far"].keys() == {"0.1", "0.01", "0.001"}
    assert found["export"]["parity_max_abs"] <= 1e-4
    assert (found["deploy"]["model"], found["deploy"]["version"]) == ("tiny", 1)
    assert found["run_id"] in output
    assert "make query " in output
    folder = river.state_path / "runs" / found["run_id"]
    assert json.loads((folder / "run.json").read_text()) == found
    assert {path.stem for path in (folder / "logs").iterdir()} >= set(STEPS)


def test_the_endpoint_embeds_the_pictures_to_try(
    first: tuple[dict[str, Any], str], river: River
) -> None:
    from plsc.client import Client

    found, _ = first
    samples = sorted((river.state_path / "samples").iterdir())
    assert len(samples) >= 4
    with Client.connect(found["deploy"]["endpoint"], model="tiny") as client:
        embeddings = client.encode(samples)
    assert embeddings.shape == (len(samples), 128)
    assert abs((embeddings**2).sum(axis=1) - 1).max() < 1e-4


def test_a_closed_gate_ends_with_4_and_leaves_the_served_version_alone(
    first: tuple[dict[str, Any], str], river: River
) -> None:
    code, output = river.run("--overrides", "evaluate.thresholds.glyph_cross=1.01")
    assert code == 4, output
    found = river.last_run()
    assert (found["status"], found["failed_step"]) == ("failed", "gate")
    assert "glyph_cross" in found["error"]
    assert "gate failed" in output
    assert found["deploy"] == {}
    assert served(first[0]) == 1


def test_the_next_run_goes_on_from_a_checkpoint_and_becomes_version_2(
    first: tuple[dict[str, Any], str], river: River
) -> None:
    run_id = first[0]["run_id"]
    code, output = river.run("--resume", run_id, "--overrides", "train.epochs=17")
    assert code == 0, output
    found = river.last_run()
    assert found["train"]["steps"] == 255
    assert re.search(rf"\[train\] .*{run_id} from step 240", output), "the log says from where"
    assert found["deploy"]["version"] == 2
    assert found["deploy"]["endpoint"] == first[0]["deploy"]["endpoint"], "the server is reused"
    assert served(found) == 2


def served(found: dict[str, Any]) -> int:
    """The version that Triton itself says it has ready."""
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(found["deploy"]["endpoint"]) as client:
        (version,) = client.get_model_metadata(found["deploy"]["model"]).versions
    return int(version)
