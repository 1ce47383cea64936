"""The worker's command line, as the pods of an Indexed Job run it."""

import subprocess
import sys

import pytest

from plsc import storage
from plsc.errors import ShardError
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


def worker(job, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "plsc.preprocess.shuffle.worker", job.uri, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_workers_share_the_tasks_by_their_index_and_skip_what_is_done(tmp_path, small_items):
    write_parts(tmp_path / "data", good_parts())
    config = settings(tmp_path)
    job, items = planning.begin(config, find(config), f"{tmp_path}/set")
    assert len(items) > 4
    done = worker(job, "--task", "map", "--index", 1, "--workers", 3)
    assert done.returncode == 0, done.stderr
    assert [is_done(job, "map", n) for n in range(len(items))] == [
        n % 3 == 1 for n in range(len(items))
    ]
    storage.delete(job.map_uri(1, ".item.json"))  # a task that is done does not need it
    assert worker(job, "--task", "map", "--index", 1, "--workers", 3).returncode == 0


def test_tasks_done_elsewhere_are_taken_over_by_the_stage(tmp_path, small_items, monkeypatch):
    write_parts(tmp_path / "data", good_parts())
    expected = run(settings(tmp_path, "preprocess.samples_per_shard=16"))
    storage.delete_prefix(expected.uri.rpartition("/")[0])
    config = settings(tmp_path)
    source = find(config)
    job, _ = planning.begin(config, source, expected.uri.rpartition("/")[0])
    assert worker(job, "--task", "map").returncode == 0
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


def test_a_job_that_was_altered_is_refused(tmp_path):
    (tmp_path / "job.json").write_text('{"seed": 0}')
    with pytest.raises(ShardError, match=r"job\.json: expected Job"):
        read_value(Job, str(tmp_path / "job.json"))


def test_a_worker_on_its_own_ends_with_the_code_of_its_error(tmp_path, small_items):
    write_parts(tmp_path / "data", good_parts())
    config = settings(tmp_path)
    job, _ = planning.begin(config, find(config), f"{tmp_path}/set")
    (tmp_path / "data" / "part-0.tsv").unlink()
    failed = worker(job, "--task", "map")
    assert failed.returncode == 3
    assert "part-0.tsv" in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
