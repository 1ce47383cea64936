"""What the pods of an Indexed Job run, as processes of this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plsc import storage
from plsc.errors import RecordError, StorageError
from plsc.preprocess import stage
from plsc.preprocess.inputs.finding import find
from plsc.preprocess.shuffle import planning
from plsc.preprocess.shuffle.job import Job, read_value
from plsc.preprocess.shuffle.worker import is_done
from plsc.preprocess.shuffle.workforce import Workforce
from plsc.preprocess.stage import run
from tests.preprocess.rows import digests_of, good_parts, settings, write_parts


@pytest.fixture
def small_items(monkeypatch):
    monkeypatch.setattr(planning, "_SMALLEST_ITEM_BYTES", 5_000)


def command(job, task, index, pods, *more):
    """Return what Popen needs to run the pod of this index."""
    words = [job.uri, "--task", task, "--pods", str(pods), *more]
    return {
        "args": [sys.executable, "-m", "plsc.preprocess.shuffle.pod", *words],
        "env": os.environ | {"JOB_COMPLETION_INDEX": str(index)},
        "text": True,
    }


def pod(*given):
    return subprocess.run(**command(*given), capture_output=True, check=False)


def begun(folder, *overrides, parts=None):
    write_parts(folder / "data", parts or good_parts())
    config = settings(folder, *overrides)
    return planning.begin(config, find(config), f"{folder}/set")


def test_pods_share_the_tasks_by_their_index_and_skip_what_is_done(tmp_path, small_items):
    job, items = begun(tmp_path)
    assert len(items) > 4
    done = pod(job, "map", 1, 3, "--processes", "2")
    assert done.returncode == 0, done.stderr
    assert [is_done(job, "map", n) for n in range(len(items))] == [
        n % 3 == 1 for n in range(len(items))
    ]
    storage.delete(job.map_uri(1, ".item.json"))  # a task that is done does not need it
    again = pod(job, "map", 1, 3)
    assert again.returncode == 0
    assert "map, index 1: 0 of" in again.stdout


def test_tasks_done_elsewhere_are_taken_over_by_the_stage(tmp_path, small_items, monkeypatch):
    write_parts(tmp_path / "data", good_parts())
    expected = run(settings(tmp_path, "preprocess.samples_per_shard=16"))
    storage.delete_prefix(expected.uri.rpartition("/")[0])
    config = settings(tmp_path)
    source = find(config)
    job, _ = planning.begin(config, source, expected.uri.rpartition("/")[0])
    assert pod(job, "map", 0, 1).returncode == 0
    tasks = []
    work = Workforce.run
    monkeypatch.setattr(
        Workforce,
        "run",
        lambda self, task, numbers, advance: (
            tasks.append((task, len(numbers))) or work(self, task, numbers, advance)
        ),
    )
    assert digests_of(stage.run(config)) == digests_of(expected)
    assert tasks[0] == ("map", 0)


def test_a_pod_ends_with_the_code_of_its_error_and_leaves_its_reason(tmp_path, small_items):
    job, _ = begun(tmp_path, parts={"part-0.tsv.gz": [b"\x1f\x8b\x08\x00cut off"]})
    failed = pod(job, "map", 0, 1)
    assert failed.returncode == RecordError.exit_code == 3
    assert "RecordError: " in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
    left = json.loads(storage.read_bytes(f"{job.work_uri}/failures/00000.json"))
    assert left["error"] == "RecordError"
    assert "part-0.tsv.gz" in left["message"]


def test_a_store_that_fails_is_tried_again_by_another_pod(tmp_path, small_items):
    job, _ = begun(tmp_path)
    part = tmp_path / "data" / "part-0.tsv"
    part.rename(tmp_path / "away")
    failed = pod(job, "map", 0, 1)
    assert failed.returncode == 75
    left = json.loads(storage.read_bytes(f"{job.work_uri}/failures/00000.json"))
    assert left["error"] == StorageError.__name__
    (tmp_path / "away").rename(part)
    assert pod(job, "map", 0, 1).returncode == 0
    assert not storage.exists(f"{job.work_uri}/failures/00000.json")


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_pod_that_is_told_to_end_does_and_leaves_nothing_half_done(
    tmp_path, small_items, processes
):
    job, items = begun(tmp_path, parts=good_parts(num_rows=3_000))
    (tmp_path / "scratch").mkdir()
    given = command(job, "map", 0, 1, "--processes", processes)
    given["env"] |= {"TMPDIR": str(tmp_path / "scratch")}
    ended = subprocess.Popen(**given, stdout=subprocess.DEVNULL)
    while not any(is_done(job, "map", n) for n in range(len(items))):
        assert ended.poll() is None
        time.sleep(0.02)
    ended.send_signal(signal.SIGTERM)
    assert ended.wait(timeout=30) == 143
    assert list((tmp_path / "scratch").iterdir()) == []
    done = [n for n in range(len(items)) if is_done(job, "map", n)]
    assert 0 < len(done) < len(items)
    written = {path.name for path in Path(job.map_uri(0, "")).parent.iterdir()}
    assert {name for name in written if not name.endswith((".run", ".json"))} == set()


def test_what_an_attempt_with_other_settings_still_writes_is_not_seen(tmp_path, small_items):
    job, _ = begun(tmp_path)
    other, _ = begun(tmp_path, "preprocess.memory_mib=100")
    assert other.attempt != job.attempt
    storage.write_bytes(job.uri, job.model_dump_json().encode())
    assert pod(job, "map", 0, 99).returncode != 0, "its plan is gone"
    storage.write_bytes(job.map_uri(0, ".json"), b"{}")
    assert not is_done(other, "map", 0)


def test_the_same_run_goes_on_with_its_attempt(tmp_path, small_items):
    job, items = begun(tmp_path)
    config = settings(tmp_path)
    assert planning.begin(config, find(config), f"{tmp_path}/set") == (job, items)
    assert read_value(Job, job.uri) == job


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], 1),
        (["preprocess.workers=3"], 3),
        (["preprocess.pods.cpu=4"], 4),
        (["preprocess.pods.cpu=2500m"], 2),
        (["preprocess.pods.cpu=500m"], 1),
        (["preprocess.pods.cpu=4", "preprocess.workers=2"], 2),
    ],
)
def test_a_pod_has_a_process_for_each_processor_that_it_asks_for(tmp_path, overrides, expected):
    config = settings(tmp_path, "preprocess.workers=0", *overrides)
    assert planning.processes_per_pod(config.preprocess) == expected
