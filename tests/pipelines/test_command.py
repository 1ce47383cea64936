"""The command line, up to where it would start something."""

from pathlib import Path

import pytest
from rich.console import Console

from pipelines import __main__ as command
from pipelines import cluster, services


@pytest.fixture(autouse=True)
def _nothing_may_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(services, "up", refuse)
    monkeypatch.setattr(cluster, "connect", refuse)
    monkeypatch.delenv("KFP_HOST", raising=False)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--overrides", "trian.epochs=1"], "trian"),
        (["--overrides", "train.epochs=many"], "train.epochs"),
        (["--overrides", "train.epochs=0"], "train.epochs must be greater than 0"),
        (["--overrides", "train.epochs='1"], "close the quote"),
        (["--experiment", "glyps"], "glyps"),
    ],
)
@pytest.mark.parametrize("host", ["", "http://127.0.0.1:1"])
def test_a_wrong_configuration_ends_with_2_before_anything_starts(
    arguments: list[str],
    named: str,
    host: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KFP_HOST", host)
    state_path = tmp_path / "state"
    assert command.main(["run", "--state-dir", str(state_path), *arguments]) == 2
    output = capsys.readouterr().out
    assert "nothing was started" in output
    assert named in output
    assert not state_path.exists()


class Cluster:
    """A KFP API that remembers what it was asked."""

    def __init__(self, state: str, *, has_pipeline: bool) -> None:
        self.asked: list[tuple[str, dict]] = []
        self._state = state
        self._has_pipeline = has_pipeline

    def get_pipeline_id(self, name: str) -> str | None:
        return "p1" if self._has_pipeline else None

    def __getattr__(self, name: str):
        def answer(*positional: object, **given: object) -> "Answer":
            self.asked.append((name, given))
            return Answer(self._state)

        return answer


class Answer:
    pipeline_id = "p2"
    pipeline_version_id = "v1"
    experiment_id = "e1"
    run_id = "r1"

    def __init__(self, state: str) -> None:
        self.state = state


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELED", 1)])
def test_with_a_host_the_run_is_submitted_and_its_end_is_the_exit_code(
    state: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Cluster(state, has_pipeline=state == "SUCCEEDED")
    monkeypatch.setenv("KFP_HOST", "http://kfp.test/")
    monkeypatch.setattr(cluster, "connect", lambda: there)
    options = ["--experiment", "tiny", "--overrides", "seed=1", "--resume", "r0"]
    assert command.main(["run", *options]) == code
    output = capsys.readouterr().out
    assert "http://kfp.test/#/runs/details/r1" in output
    assert state in output
    run = next(given for name, given in there.asked if name == "run_pipeline")
    assert run["params"] == {
        "experiment": "tiny",
        "overrides": "seed=1",
        "data_uri": "",
        "resume_run": "r0",
    }
    assert run["pipeline_id"] == ("p1" if state == "SUCCEEDED" else "p2")
    assert run["version_id"] == "v1"
    assert "upload_pipeline_version" in [name for name, _ in there.asked]


def test_a_run_id_of_the_users_own_is_kept(tmp_path: Path) -> None:
    from pipelines.request import Request

    request = Request("tiny", "run_id=mine", "", "", tmp_path)
    assert request.compose("made").run_id == "mine"


def test_a_missing_service_ends_the_run_with_a_reason_and_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import runner
    from pipelines.request import Request

    def fail(_: Path) -> None:
        raise services.ServicesError("no weed: install it")

    monkeypatch.setattr(services, "up", fail)
    console = Console(record=True, width=100)
    request = Request("tiny", "", "", "", tmp_path)
    assert runner.run(request, console) == 1
    assert "no weed: install it" in console.export_text()
    assert '"failed_step": "services"' in (tmp_path / "last-run.json").read_text()
