"""The command line, up to where it would start something."""

from pathlib import Path

import pytest
from rich.console import Console

from pipelines import __main__ as command
from pipelines import services
from pipelines.cluster import connection


@pytest.fixture(autouse=True)
def _nothing_may_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(services, "up", refuse)
    monkeypatch.setattr(connection, "connect", refuse)
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


def test_ctrl_c_before_a_run_is_followed_tells_where_to_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(connection, "connect", interrupt)
    monkeypatch.setenv("KFP_HOST", "kubectl")
    assert command.main(["follow", "--state-dir", str(tmp_path), "r1"]) == 130
    output = capsys.readouterr().out
    assert "http://localhost:8080/#/runs after: kubectl -n kubeflow port-forward" in output


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
