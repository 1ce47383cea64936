"""Runs on a cluster, against a stand-in for KFP's API over real HTTP."""

import json
import logging
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import __main__ as command
from pipelines import compilation
from pipelines.cluster import connection, following
from plsc import doorway, storage
from plsc.errors import RecordError
from tests.pipelines.kfp_api import KfpApi, left_out, moment, serve, step, workflow

ROOT = Path(__file__).parents[2]
DONE = moment("SUCCEEDED", step("preprocess", "SUCCEEDED", 1, 9), step("train", "SUCCEEDED", 9, 40))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpApi]:
    for name in [name for name in os.environ if name.startswith(("KFP_", "KF_", "PLSC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(following, "POLL_S", 0.01)
    monkeypatch.setattr(following, "_LOOK_CLOSER_S", 0.0)
    monkeypatch.setattr(connection.time, "sleep", lambda _: None)
    monkeypatch.setattr(compilation, "compile_pipeline", compiled_at_once)
    with serve() as api:
        monkeypatch.setenv("KFP_HOST", api.url)
        yield api


def compiled_at_once(experiments: list[str], **given: object) -> str:
    return f"pipelineInfo: {given}"


def run(state_path: Path, *options: str, name: str = "run") -> int:
    return command.main([name, "--state-dir", str(state_path), *options])


def test_a_run_is_uploaded_started_shown_and_told(
    api: KfpApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.moments = [
        moment("PENDING"),
        moment("RUNNING", step("preprocess", "RUNNING", 1)),
        moment("RUNNING", step("preprocess", "SUCCEEDED", 1, 3, executor="SKIPPED")),
        DONE,
    ]
    assert run(tmp_path, "--experiment", "tiny", "--overrides", "seed=1", "--resume", "r0") == 0
    output = capsys.readouterr().out
    assert f"{api.url}/#/runs/details/r1" in output
    steps = re.findall(r"^([▶✓✗] .*)$", output, flags=re.MULTILINE)
    assert [line.split("  ")[0] for line in steps] == [
        "▶ preprocess", "✓ preprocess", "▶ train", "✓ train",
    ]  # fmt: skip
    assert "cached: the result of an earlier run" in steps[1]
    assert "r1 succeeded in 59.0 s" in output
    assert "driver" not in output
    assert "executor" not in output
    started = api.objects["runs"]["r1"]
    assert started["runtime_config"]["parameters"] == {
        "experiment": "tiny", "overrides": "seed=1", "data_uri": "", "resume_run": "r0",
    }  # fmt: skip
    assert started["experiment_id"] == "e1"
    assert api.objects["experiments"]["e1"]["display_name"] == "plsc"
    assert started["pipeline_version_reference"] == {
        "pipeline_id": "p1",
        "pipeline_version_id": "v1",
    }
    told = json.loads((tmp_path / "last-run.json").read_text())
    assert told["status"] == "succeeded"
    assert told["stages"] == {"preprocess": {"seconds": 8.0}, "train": {"seconds": 31.0}}


def test_the_same_pipeline_is_uploaded_once_and_another_as_a_version(
    api: KfpApi, tmp_path: Path
) -> None:
    api.moments = [DONE]
    for options in ([], [], ["--registry", "here.test/team", "--tag", "7"], ["--no-cache"]):
        assert run(tmp_path, *options) == 0
    assert len(api.objects["pipelines"]) == 1
    assert len(api.objects["versions"]) == 3
    assert len(api.objects["experiments"]) == 1
    assert len(api.objects["runs"]) == 4


def test_several_users_have_their_own_namespace_account_and_experiment(
    api: KfpApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.moments = [DONE]
    monkeypatch.setenv("KFP_NAMESPACE", "team")
    monkeypatch.setenv("KFP_SERVICE_ACCOUNT", "robot")
    monkeypatch.setenv("KFP_EXPERIMENT", "faces")
    assert run(tmp_path) == 0
    assert api.objects["experiments"]["e1"] == {
        "display_name": "faces", "namespace": "team", "experiment_id": "e1",
    }  # fmt: skip
    assert api.objects["runs"]["r1"]["service_account"] == "robot"
    assert api.count("GET", "/experiments?") == 1
    assert all("namespace=team" in path for _, path in api.asked if "/experiments?" in path)


@pytest.mark.parametrize("kind", ["variable", "file", "pod"])
def test_the_token_goes_into_the_header_and_nowhere_else(
    kind: str,
    api: KfpApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    api.token, api.moments = "s3cr3t", [DONE]
    path = tmp_path / "token"
    path.write_text("s3cr3t\n")
    named = {"variable": "KFP_TOKEN", "file": "KFP_TOKEN_FILE", "pod": "KF_PIPELINES_SA_TOKEN_PATH"}
    monkeypatch.setenv(named[kind], "s3cr3t" if kind == "variable" else str(path))
    assert run(tmp_path) == 0
    assert api.tokens == {"Bearer s3cr3t"}
    output = capsys.readouterr()
    assert "s3cr3t" not in output.out + output.err + caplog.text
    written = [found.read_text() for found in tmp_path.rglob("*.json")]
    assert written
    assert not [text for text in written if "s3cr3t" in text]


def test_a_token_that_is_not_taken_ends_it_with_advice(
    api: KfpApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.token = "another"
    assert run(tmp_path) == 1
    output = capsys.readouterr().out
    assert "nothing was started: " in output
    assert "answers 401" in output
    assert "KFP_TOKEN_FILE" in output
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("KFP_HOST", "kfp.test", "must be http://"),
        ("KFP_HOST", "kubectl://Wrong", "kubectl://NAMESPACE/SERVICE"),
        ("KFP_TOKEN_FILE", "/nowhere/token", "cannot be read"),
        ("KFP_CA_CERT", "/nowhere/ca.crt", "is no file"),
    ],
)
def test_a_wrong_setting_ends_with_2(
    variable: str,
    value: str,
    named: str,
    api: KfpApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    assert run(tmp_path) == 2
    assert named in capsys.readouterr().out
    assert not api.asked


def test_errors_of_the_api_are_outlived(
    api: KfpApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.moments = [moment("RUNNING", step("preprocess", "RUNNING", 1)), DONE]
    api.faults = [
        ("GET /apis/v2beta1/healthz", 503),
        ("POST /apis/v2beta1/pipelines/upload_version", 500),
        ("POST /apis/v2beta1/runs", 0),
        ("GET /apis/v2beta1/runs/", 429),
        ("GET /apis/v2beta1/runs/", 0),
        ("GET /apis/v2beta1/runs/", 503),
    ]
    assert run(tmp_path) == 0
    output = capsys.readouterr().out
    assert not api.faults
    assert output.count("the run goes on, and is looked for again") == 1
    assert output.count("KFP answers again") == 1
    assert len(api.objects["runs"]) == 1


def test_a_run_whose_start_was_not_answered_is_found_not_started_again(
    api: KfpApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.moments = [DONE]
    answer = api.answer

    def lose(method: str, path: str, query: dict, body: bytes) -> object:
        found = answer(method, path, query, body)
        return 504 if method == "POST" and path.endswith("/runs") else found

    monkeypatch.setattr(api, "answer", lose)
    listed, looks = api.listed, []

    def list_late(kind: str, query: dict) -> list[dict]:
        looks.extend([kind] if kind == "runs" else [])
        return [] if kind == "runs" and len(looks) < 3 else listed(kind, query)

    monkeypatch.setattr(api, "listed", list_late)
    assert run(tmp_path) == 0
    assert len(api.objects["runs"]) == 1


def test_a_run_that_may_have_been_started_is_not_said_not_to_be(
    api: KfpApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.faults = [("POST /apis/v2beta1/runs", 504)] * 2
    assert run(tmp_path) == 1
    output = capsys.readouterr().out
    assert "may have been started, or not" in output
    assert "nothing was started" not in output


def test_a_token_file_that_is_just_being_written_is_read_again(
    api: KfpApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "token"
    path.write_text("s3cr3t")
    monkeypatch.setenv("KFP_TOKEN_FILE", str(path))
    started(api)
    api.moments = [moment("RUNNING"), DONE]
    answer = api.answer

    def empty(*asked: object) -> object:
        path.write_text("")
        return answer(*asked)

    monkeypatch.setattr(api, "answer", empty)
    monkeypatch.setattr(connection.time, "sleep", lambda _: path.write_text("s3cr3t"))
    assert run(tmp_path, "r1", name="follow") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert f"the token file {path} is empty; the run goes on" in output


FAILED = moment(
    "FAILED", step("preprocess", "SUCCEEDED", 1, 9), step("train", "FAILED", 9, 40),
    left_out("evaluate"), history=("PENDING", "RUNNING"),
)  # fmt: skip
LOG = """\
I1123 02:09:56.620243      15 main.go:67] Setting log level to: '1'
[train] begins: experiment tiny, run r1
[train] RecordError: shard 3 is cut off
Traceback (most recent call last):
plsc.errors.RecordError: shard 3 is cut off
F1123 02:09:57.180290      15 main.go:59] failed to execute component: exit status 3
"""


def test_the_reason_of_a_failed_step_is_read_from_its_log(
    api: KfpApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.moments = [FAILED]
    api.workflow = workflow("train", ("Failed", ""), ("Failed", "main: Error (exit code 1)"))
    api.logs = {"w-system-container-impl-91": LOG}
    assert run(tmp_path) == RecordError.exit_code
    output = capsys.readouterr().out
    assert "train failed after 59.0 s\nRecordError: shard 3 is cut off" in output
    assert "[train] begins" in output
    assert "main.go" not in output
    assert "Traceback" not in output
    assert "▶ evaluate" not in output
    assert "make pipeline-retry" in output
    told = json.loads((tmp_path / "last-run.json").read_text())
    assert told["failed_step"] == "train"


def test_without_a_log_the_end_of_the_pod_is_told(
    api: KfpApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.moments = [FAILED]
    api.workflow = workflow("train", ("Failed", "OOMKilled (exit code 137)"))
    assert run(tmp_path) == 1
    assert "OOMKilled (exit code 137)" in capsys.readouterr().out


def test_without_argos_view_the_failed_step_is_named(
    api: KfpApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.moments = [FAILED]
    assert run(tmp_path) == 1
    assert "train failed" in capsys.readouterr().out


def test_the_store_tells_more_where_it_is_known(
    api: KfpApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from plsc import conf

    monkeypatch.setenv("PLSC_STORE_URI", str(tmp_path / "store"))
    api.moments = [FAILED]
    config = conf.compose("tiny", "run_id=r1")
    left = {"error": "GateFailed", "message": "too few", "exit_code": 4}
    storage.write_bytes(doorway.failure_uri(config, "train"), json.dumps(left).encode())
    assert run(tmp_path, "--experiment", "tiny") == 4
    assert "GateFailed: too few" in capsys.readouterr().out


def test_waiting_pods_and_further_attempts_are_told(
    api: KfpApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.moments = [moment("RUNNING", step("train", "RUNNING", 1)), DONE]
    back_off = "ImagePullBackOff: Back-off pulling image plsc-train-launch:0.1.0"
    api.workflow = workflow("train", ("Error", "pod deleted"), ("Pending", back_off))
    assert run(tmp_path) == 0
    output = capsys.readouterr().out
    assert "[train] attempt 2; the one before failed: pod deleted" in output
    assert f"[train] its pod waits: {back_off}" in output


@pytest.mark.parametrize(
    ("state", "history"), [("FAILED", ("RUNNING", "CANCELING")), ("CANCELED", ("RUNNING",))]
)
def test_a_run_that_somebody_terminated_is_told_from_one_that_failed(
    state: str,
    history: tuple[str, ...],
    api: KfpApi,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    api.moments = [moment(state, step("train", "FAILED", 1, 9), history=history)]
    assert run(tmp_path) == 143
    output = capsys.readouterr().out
    assert "the run was terminated in train" in output
    assert "make pipeline-retry" in output


def test_a_run_that_was_terminated_retried_and_then_failed_has_failed(
    api: KfpApi, tmp_path: Path
) -> None:
    history = ("RUNNING", "CANCELING", "FAILED", "RUNNING")
    api.moments = [moment("FAILED", step("train", "FAILED", 1, 9), history=history)]
    assert run(tmp_path) == 1


def started(api: KfpApi, *, experiment: str = "tiny") -> None:
    api.add("runs", "run_id", {"runtime_config": {"parameters": {"experiment": experiment}}})


def test_a_run_is_followed_again_and_a_failed_step_that_is_retried_begins_anew(
    api: KfpApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started(api)
    before = moment("RUNNING", step("preprocess", "SUCCEEDED", 1, 3), step("train", "FAILED", 3, 9))
    api.moments = [FAILED, before, DONE]
    assert run(tmp_path, "r1", name="retry") == 0
    output = capsys.readouterr().out
    assert "✗" not in output
    assert "✓ train" in output
    assert api.count("POST", "r1:retry") == 1
    assert json.loads((tmp_path / "last-run.json").read_text())["experiment"] == "tiny"


@pytest.mark.parametrize(("name", "state"), [("terminate", "SUCCEEDED"), ("retry", "RUNNING")])
def test_what_cannot_be_done_with_a_run_is_said(
    name: str, state: str, api: KfpApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started(api)
    api.moments = [moment(state)]
    assert run(tmp_path, "r1", name=name) == 1
    assert state in capsys.readouterr().out
    assert not api.count("POST", "")


def test_a_run_that_is_not_there_is_said(
    api: KfpApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "r7", name="follow") == 1
    assert "answers 404 about the run" in capsys.readouterr().out


def test_terminate_ends_a_run(api: KfpApi, tmp_path: Path) -> None:
    started(api)
    api.moments = api.after_termination = [moment("RUNNING")]
    assert run(tmp_path, "r1", name="terminate") == 0
    assert api.count("POST", "r1:terminate") == 1


def arguments(state_path: Path) -> list[str]:
    options = ["--state-dir", str(state_path), "r1"]
    return [sys.executable, "-W", "ignore", "-m", "pipelines", "follow", *options]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_without_a_terminal_a_signal_leaves_the_run_and_says_how_to_go_on(
    signum: signal.Signals, api: KfpApi, tmp_path: Path
) -> None:
    started(api)
    api.moments = [moment("RUNNING", step("train", "RUNNING", 1))]
    with subprocess.Popen(
        arguments(tmp_path), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "▶ train" in line:
                break
        process.send_signal(signum)
        rest = process.stdout.read()
        assert process.wait() == 128 + signum
    assert "goes on without this command" in rest
    assert f"KFP_HOST={api.url} make pipeline-follow" in rest
    assert "make pipeline-terminate" in rest
    assert not api.count("POST", "")


class Terminal:
    """A command on a terminal of its own, and the person before it."""

    def __init__(self, command: list[str]) -> None:
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            os.chdir(ROOT)
            os.execv(command[0], command)
        self.seen = ""

    def await_text(self, pattern: str, *, patience_s: float = 60) -> None:
        end = time.monotonic() + patience_s
        while not re.search(pattern, self.seen):
            assert select.select([self._descriptor], [], [], end - time.monotonic())[0], self.seen
            self.seen += os.read(self._descriptor, 4096).decode(errors="replace")

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self._descriptor, text.encode())

    def wait(self) -> int:
        while True:
            try:
                found = os.read(self._descriptor, 4096)
            except OSError:
                break
            if not found:
                break
            self.seen += found.decode(errors="replace")
        os.close(self._descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


QUESTION = r"Terminate the run\?.*without you"


def test_at_a_terminal_ctrl_c_asks_and_yes_terminates(api: KfpApi, tmp_path: Path) -> None:
    started(api)
    api.moments = [moment("RUNNING", step("train", "RUNNING", 1))]
    api.after_termination = [
        moment("CANCELING", step("train", "RUNNING", 1), history=("RUNNING",)),
        moment("FAILED", step("train", "FAILED", 1, 9), history=("RUNNING", "CANCELING")),
    ]
    terminal = Terminal(arguments(tmp_path))
    terminal.await_text("train runs since")
    terminal.type("\x03")
    terminal.await_text(QUESTION)
    terminal.type("no\n")
    terminal.await_text("train runs since")
    assert not api.count("POST", ":terminate")
    terminal.type("\x03")
    terminal.await_text(QUESTION)
    terminal.type("y\n")
    assert terminal.wait() == 130
    assert api.count("POST", ":terminate") == 1
    assert "the run was terminated in train" in terminal.seen


def test_a_run_that_ends_while_the_question_stands_is_told_as_it_ended(
    api: KfpApi, tmp_path: Path
) -> None:
    started(api)
    api.moments = [moment("RUNNING", step("train", "RUNNING", 1))]
    terminal = Terminal(arguments(tmp_path))
    terminal.await_text("train runs since")
    terminal.type("\x03")
    terminal.await_text(QUESTION)
    api.moments = [DONE]
    terminal.type("y\n")
    assert terminal.wait() == 0
    assert not api.count("POST", ":terminate")
    assert json.loads((tmp_path / "last-run.json").read_text())["status"] == "succeeded"


def test_a_second_ctrl_c_leaves_the_run_alone(api: KfpApi, tmp_path: Path) -> None:
    started(api)
    api.moments = [moment("RUNNING", step("train", "RUNNING", 1))]
    terminal = Terminal(arguments(tmp_path))
    terminal.await_text("train runs since")
    terminal.type("\x03")
    terminal.await_text(QUESTION)
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert not api.count("POST", ":terminate")
    assert "goes on without this command" in terminal.seen
