"""The runner, on a small pipeline in the real kfp.local, whose second step a test chooses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SLEEPER = """
import os, subprocess, sys, time
def act(experiment, overrides):
    code = "import time; time.sleep(300)"
    # In a session of its own, as the ranks of torchrun are.
    one = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    open({path!r}, "w").write(str(one.pid) + " " + os.environ["TMPDIR"])
    {then}
"""
GATE = """
from plsc import conf, doorway, errors
def act(experiment, overrides):
    config = conf.compose(experiment, *conf.split_overrides(overrides))
    doorway.configure_logging("second")
    with doorway.enter("second", config):
        raise errors.GateFailed("glyph_rough verifies at 0.4, below 0.5")
"""


class River:
    """One state folder, and runs in it."""

    def __init__(self, folder: Path) -> None:
        self.state_path = folder / "state"
        self.act_path = folder / "act"
        self.act_path.mkdir()
        self.mark_path = folder / "mark"

    def start(self, act: str) -> "subprocess.Popen[str]":
        (self.act_path / "act.py").write_text(act)
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
        environment |= {"TMPDIR": str(self.act_path)}
        environment.pop("KFP_HOST", None)
        return subprocess.Popen(
            [sys.executable, Path(__file__).with_name("drive.py"), self.state_path, self.act_path],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, act: str) -> tuple[int, str]:
        with self.start(act) as process:
            output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def sleeper(self, then: str) -> str:
        return SLEEPER.format(path=str(self.mark_path), then=then)

    def mark(self) -> tuple[psutil.Process, Path]:
        """The process that the second step has started, and the run's temporary folder."""
        wait_for(lambda: self.mark_path.exists() and " " in self.mark_path.read_text())
        pid, tmp = self.mark_path.read_text().split(" ", 1)
        return psutil.Process(int(pid)), Path(tmp)

    def last_run(self) -> dict[str, object]:
        return json.loads((self.state_path / "last-run.json").read_text())


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


@pytest.fixture
def river(tmp_path: Path) -> River:
    return River(tmp_path)


def test_a_run_shows_what_steps_say_and_leaves_logs_and_an_outcome(river: River) -> None:
    code, output = river.run("def act(experiment, overrides): print('[second] acts')")
    assert code == 0, output
    assert "[first] experiment tiny" in output
    assert "[second] acts" in output
    assert "not meant for people" not in output
    assert "executor_input" not in output
    found = river.last_run()
    folder = river.state_path / "runs" / str(found["run_id"])
    assert found["status"] == "succeeded"
    assert list(found["stages"]) == ["first", "second", "third"]
    assert found == json.loads((folder / "run.json").read_text())
    assert "not meant for people" in (folder / "logs" / "first.log").read_text()
    assert "[second] acts" not in (folder / "logs" / "first.log").read_text()
    assert "[third] reached" in (folder / "pipeline.log").read_text()
    second = (folder / "logs" / "second.log").read_text()
    said = next(line for line in second.splitlines() if line.startswith("[second]")).split()
    assert said[1] == found["run_id"], "the run id travels in the overrides"
    assert not said[2].startswith("{{"), "kfp resolves the bare placeholder"
    assert not Path(said[3]).exists(), "temporary files are gone"
    assert "from the services" in second
    assert "count 3" in second


def test_a_failure_ends_the_run_with_the_code_that_the_step_left(river: River) -> None:
    start = time.monotonic()
    code, output = river.run(GATE)
    assert code == 4
    assert "second failed" in output
    assert "GateFailed: glyph_rough verifies at 0.4" in output
    assert "Traceback" not in output, "an orderly end needs none"
    assert "logs/second.log" in output
    assert "[third]" not in output
    assert time.monotonic() - start < 30, "the step must not be tried again, 30 s later"
    found = river.last_run()
    assert (found["status"], found["failed_step"]) == ("failed", "second")
    assert "glyph_rough" in str(found["error"])


def test_a_step_that_breaks_shows_its_traceback(river: River) -> None:
    code, output = river.run("def act(experiment, overrides): raise RuntimeError('no such luck')")
    assert code == 1
    assert "RuntimeError: no such luck" in output
    assert "Got executor_input" not in output


def test_what_a_killed_step_has_started_is_ended_and_the_signal_named(river: River) -> None:
    code, output = river.run(river.sleeper("os.kill(os.getpid(), 9)"))
    started, _ = river.mark_path.read_text().split(" ", 1)
    assert code == 1
    assert "second failed" in output
    assert "SIGKILL" in output
    assert not psutil.pid_exists(int(started))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_runner_leaves_no_process_and_no_file(river: River, signum: int) -> None:
    with river.start(river.sleeper("time.sleep(300)")) as process:
        started, tmp = river.mark()
        family = [started, *psutil.Process(process.pid).children(recursive=True)]
        assert tmp.is_dir()
        process.send_signal(signum)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert "second failed" in output
    assert f"stopped by {signal.Signals(signum).name}" in output
    assert not [one for one in family if one.is_running()]
    assert not tmp.exists()
    assert river.last_run()["failed_step"] == "second"


def test_a_killed_runner_takes_its_processes_along_and_frees_the_lock(river: River) -> None:
    with river.start(river.sleeper("time.sleep(300)")) as process:
        started, _ = river.mark()
        family = [started, *psutil.Process(process.pid).children(recursive=True)]
        busy = river.run("def act(experiment, overrides): pass")
        assert busy[0] == 1
        assert f"another run (process {process.pid}) goes on" in busy[1]
        process.kill()
        process.communicate(timeout=60)
    wait_for(lambda: not [one for one in family if one.is_running()])
    code, output = river.run("def act(experiment, overrides): pass")
    assert code == 0, output
