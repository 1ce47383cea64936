"""Ranks on this machine: stopped with whoever waits for them, and their ends told apart."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from plsc import storage
from plsc.train.backends.protocol import RankKilledError
from plsc.train.backends.torchrun import _what_happened

STEP = """
import sys
from plsc.train.step import run_step
overrides, run_id, dataset, model = sys.argv[1:]
run_step("tiny", overrides, "", run_id, resume_run="", dataset_path=dataset, model_path=model,
         metadata={}, metrics={})
"""


def report(*failures):
    lines = ["Failures:"]
    for rank, status, pid in failures:
        lines += [
            f"  rank      : {rank} (local_rank: {rank})",
            f"  exitcode  : {status} (pid: {pid})",
        ]
    return lines


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        ([(0, 1, 5), (1, -9, 6)], "rank 1 of 2 was killed by SIGKILL (pid 6)"),
        ([(0, -15, 5), (1, 3, 6)], "rank 1 of 2 ended with code 3 (pid 6)"),
        ([(0, 143, 5), (1, 143, 6)], "stopped by a SIGTERM that did not come from here"),
        ([], "torchrun ended with code 1 and named no rank"),
    ],
)
def test_the_rank_that_began_it_is_named(failures, told):
    error = _what_happened(report(*failures), 2, 1)
    assert told in str(error)
    assert isinstance(error, RankKilledError) is ("killed" in told)


def begun(place, tmp_path, *overrides):
    """Start the step as kfp does, in a process of its own."""
    given = " ".join([*place.overrides("stop"), "train.log_every_steps=1", *overrides])
    dataset = f"{place.store}/runs/shards/preprocess/index.json"
    return subprocess.Popen(
        [sys.executable, "-c", STEP, given, "stop", dataset, str(tmp_path / "model.json")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"}, start_new_session=True,
    )  # fmt: skip


def until_said(process, what):
    for line in process.stdout:
        if what in line:
            return line
    raise AssertionError(f"ended with {process.wait()} before it said {what!r}")


@pytest.mark.slow
def test_a_stopped_step_leaves_a_checkpoint_and_the_next_goes_on_from_it(place, tmp_path):
    endless = ("train.max_steps=100000", "train.epochs=100000", "train.checkpoint_every_steps=0")
    with begun(place, tmp_path, *endless) as process:
        until_said(process, "] step 4/")
        ranks = psutil.Process(process.pid).children(recursive=True)
        # As the local runner ends a run: all of the session, and then every descendant once more.
        os.killpg(process.pid, signal.SIGTERM)
        for rank in ranks:
            rank.terminate()
        said = until_said(process, "stopped by SIGTERM at step")
        process.stdout.read()
    assert process.returncode == 143
    assert not psutil.wait_procs(ranks, timeout=10)[1]
    step = int(said.split("at step ")[1].split(",")[0])
    folder = f"{place.store}/runs/stop"
    assert storage.exists(f"{folder}/checkpoints/step-{step:08d}/index.json")
    assert not storage.exists(f"{folder}/train/failure.json")

    with begun(place, tmp_path, f"train.max_steps={step + 2}", *endless[1:]) as process:
        assert until_said(process, f"resumes run stop from step {step}")
        process.stdout.read()
    assert process.returncode == 0
    assert json.loads((tmp_path / "model.json").read_text())["step"] == step + 2
