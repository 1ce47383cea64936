"""On a cluster a step comes back under its run id: what it did is kept, unless the input is bad."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plsc import storage
from plsc.errors import ConfigError, RecordError, StorageError
from plsc.preprocess import stage
from plsc.preprocess.shuffle import mapping, planning
from plsc.preprocess.stage import run
from tests.preprocess.rows import digests_of, good_parts, settings, write_parts

CLUSTER = {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}


@pytest.fixture
def small_items(monkeypatch):
    monkeypatch.setattr(planning, "_SMALLEST_ITEM_BYTES", 5_000)


def work_of(folder: Path) -> list[Path]:
    return [path for path in (folder / "store").rglob("work/**/*") if path.is_file()]


def fails_at_order(monkeypatch) -> None:
    """Let the store fail when all map tasks are done."""

    def fail(*_):
        raise StorageError("the store is away")

    monkeypatch.setattr(stage, "find_order", fail)


@pytest.mark.parametrize("where", ["cluster", "laptop"])
def test_the_work_of_a_failed_step_is_kept_on_a_cluster_only(
    tmp_path, small_items, monkeypatch, where
):
    write_parts(tmp_path / "data", good_parts())
    if where == "cluster":
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    with monkeypatch.context() as patch:
        fails_at_order(patch)
        with pytest.raises(StorageError):
            run(settings(tmp_path))
    assert bool(work_of(tmp_path)) is (where == "cluster")
    mapped = []
    work = mapping.map_item
    monkeypatch.setitem(
        stage.hiring.Workforce.run.__globals__["do"].__globals__["TASKS"],
        "map",
        lambda job, number, advance: (mapped.append(number), work(job, number, advance)),
    )
    dataset = run(settings(tmp_path))
    assert bool(mapped) is (where == "laptop"), "no work is done twice"
    assert dataset.num_samples == 60
    assert work_of(tmp_path) == []


@pytest.mark.parametrize("error", [RecordError, ConfigError])
def test_work_that_cannot_be_gone_on_with_is_not_kept(tmp_path, monkeypatch, error):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    write_parts(tmp_path / "data", good_parts())

    def fail(*_):
        raise error("it cannot be made")

    monkeypatch.setattr(stage, "find_order", fail)
    with pytest.raises(error):
        run(settings(tmp_path))
    assert work_of(tmp_path) == []


def test_work_of_an_abandoned_run_is_cleared_by_the_next_success(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    write_parts(tmp_path / "data", good_parts())
    with monkeypatch.context() as patch:
        fails_at_order(patch)
        with pytest.raises(StorageError):
            run(settings(tmp_path, run_id="abandoned"))
    assert work_of(tmp_path)
    run(settings(tmp_path, run_id="another"))
    assert work_of(tmp_path) == []


@pytest.mark.slow
def test_a_step_whose_pod_is_moved_goes_on_where_it_stopped(tmp_path):
    write_parts(tmp_path / "data", good_parts(num_rows=3_000))
    program = (
        "import logging, sys; from pathlib import Path\n"
        "from plsc.preprocess.shuffle import planning\n"
        "from plsc.preprocess.stage import run\n"
        "from tests.preprocess.rows import digests_of, settings\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "planning._SMALLEST_ITEM_BYTES = 5_000\n"
        "print(*digests_of(run(settings(Path(sys.argv[1]), 'preprocess.workers=2'))))"
    )
    given = {
        "args": [sys.executable, "-c", program, str(tmp_path)],
        "env": os.environ | CLUSTER,
        "stdout": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen(**given) as moved:
        while len(list(tmp_path.rglob("map/?????.json"))) < 3:
            assert moved.poll() is None
            time.sleep(0.02)
        moved.send_signal(signal.SIGTERM)
        moved.communicate(timeout=60)
    assert moved.returncode == 143
    done = len(list(tmp_path.rglob("map/?????.json")))
    again = subprocess.run(**given, stderr=subprocess.PIPE, check=True)
    assert f"({done} done before)" in again.stderr
    expected = tmp_path / "expected"
    expected.mkdir()
    (expected / "data").symlink_to(tmp_path / "data")
    assert again.stdout.split() == digests_of(run(settings(expected)))
    assert work_of(tmp_path) == []


def test_a_clearing_that_is_cut_off_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    write_parts(tmp_path / "data", good_parts())

    def cut_off(prefix):
        raise StorageError(f"cut off: {prefix}")

    with monkeypatch.context() as patch:
        fails_at_order(patch)
        patch.setattr(stage.storage, "delete_prefix", cut_off)
        patch.setattr(planning.storage, "delete_prefix", lambda _: 0)
        with pytest.raises(StorageError, match="away"):
            run(settings(tmp_path))
    assert not [path for path in work_of(tmp_path) if path.name == "job.json"]
    assert run(settings(tmp_path)).num_samples == 60


def test_pods_are_refused_where_there_is_no_cluster(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    write_parts(tmp_path / "data", good_parts())
    with pytest.raises(ConfigError, match=r"preprocess\.pods\.count=2 needs a Kubernetes cluster"):
        run(settings(tmp_path, "preprocess.pods.count=2"))
    assert not storage.exists(f"{tmp_path}/store")
