"""Whatever is killed, whenever: nothing half-done looks finished, and a re-run gives the same."""

import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from plsc import doorway
from plsc.artifacts.shards import ShardSet
from plsc.errors import RecordError, StorageError
from plsc.preprocess import stage
from plsc.preprocess.shuffle import planning, workforce
from plsc.preprocess.shuffle.workforce import WorkerLostError
from plsc.preprocess.stage import run
from tests.preprocess.rows import digests_of, good_parts, line, settings, write_parts


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> list[str]:
    """The digests of the shards that every test here has to give."""
    folder = tmp_path_factory.mktemp("expected")
    write_parts(folder / "data", good_parts())
    return digests_of(run(settings(folder)))


@pytest.fixture
def small_items(monkeypatch) -> None:
    """Let small parts make several items."""
    monkeypatch.setattr(planning, "_SMALLEST_ITEM_BYTES", 5_000)


def python(program, *arguments, **environment):
    """Run a program that is to die or find no room: coverage could not write its file there."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


DIES_AT_A_WRITE = """
import os, signal, sys
from pathlib import Path
from plsc import storage
from plsc.preprocess.shuffle import planning
from plsc.preprocess.stage import run
from tests.preprocess.rows import settings
planning._SMALLEST_ITEM_BYTES = 5_000
write = storage.write_bytes
def write_or_die(uri, content, **how):
    if sys.argv[2] in uri and "/runs/" not in uri:
        os.kill(os.getpid(), signal.SIGKILL)
    write(uri, content, **how)
storage.write_bytes = write_or_die
run(settings(Path(sys.argv[1]), run_id="killed"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "again"),
    [
        ("map/00000-0000.run", "killed"),  # map: before anything of a task is there
        ("map/00002.json", "another"),  # map: a task has written its run, and not that it is done
        ("reduce/00000.plan.json", "killed"),  # order
        ("shard-00001.arrow", "another"),  # reduce: in the middle of a task
        ("reduce/00000.json", "killed"),  # reduce: all shards there, and not that they are
        ("classes.arrow", "another"),  # seal
        ("data_report.html", "killed"),
        ("index.json", "killed"),
    ],
)
def test_a_run_killed_at_any_write_leaves_no_index_and_a_rerun_gives_the_same(
    tmp_path, expected, small_items, at, again
):
    write_parts(tmp_path / "data", good_parts())
    killed = python(DIES_AT_A_WRITE, tmp_path, at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store = Path(settings(tmp_path).store_uri)
    assert not list(store.rglob("index.json"))
    done = {path: path.stat().st_mtime_ns for path in store.rglob("map/*.run")}
    replaced = []
    write = stage.storage.write_bytes

    def watched(uri, content, **how):
        replaced.append(Path(uri))
        write(uri, content, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.storage, "write_bytes", watched)
        dataset = run(settings(tmp_path, run_id=again))
    assert digests_of(dataset) == expected
    assert not list(store.glob("datasets/*/work*"))
    if again == "killed" and at == "index.json":
        assert not done.keys() & set(replaced), "finished tasks of the same run are done once"


def test_a_worker_killed_in_a_task_is_replaced(
    tmp_path, expected, small_items, monkeypatch, caplog
):
    write_parts(tmp_path / "data", good_parts())
    victims = kill_workers(monkeypatch, first={("map", 1), ("reduce", 0)})
    dataset = run(settings(tmp_path, "preprocess.workers=2"))
    assert digests_of(dataset) == expected
    assert sorted(victims) == [("map", 1), ("reduce", 0)]
    assert caplog.text.count("was killed by SIGKILL") == 2
    assert not workers_alive()


def test_a_task_whose_workers_are_always_killed_ends_the_stage_and_leaves_nothing(
    tmp_path, expected, small_items, monkeypatch
):
    write_parts(tmp_path / "data", good_parts())
    config = settings(tmp_path, "preprocess.workers=2")
    with monkeypatch.context() as patch:
        kill_workers(patch, always={("map", 2)})
        with pytest.raises(WorkerLostError, match=r"in map task 2.*SIGKILL.*memory_mib"):
            run(config)
    assert not list(Path(config.store_uri).rglob("index.json"))
    assert not [path for path in Path(config.store_uri).rglob("work/**/*") if path.is_file()]
    assert not workers_alive()
    assert digests_of(run(config)) == expected


def workers_alive():
    """Return the worker processes of this process."""
    children = psutil.Process().children(recursive=True)
    return [one for one in children if any("shuffle.worker" in word for word in one.cmdline())]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_end_takes_everything_temporary_with_it(tmp_path, number):
    write_parts(tmp_path / "data", good_parts(num_rows=8_000))
    (tmp_path / "scratch").mkdir()
    driver = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import signal, sys; from pathlib import Path\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from plsc.preprocess.shuffle import planning\n"
            "from plsc.preprocess.stage import run\n"
            "from tests.preprocess.rows import settings\n"
            "planning._SMALLEST_ITEM_BYTES = 5_000\n"
            "run(settings(Path(sys.argv[1]), 'preprocess.workers=2'))",
            str(tmp_path),
        ],
        env=os.environ | {"TMPDIR": str(tmp_path / "scratch")},
        stderr=subprocess.DEVNULL,
    )
    while not list(tmp_path.rglob("map/*.run")):
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(number)
    assert driver.wait(timeout=60) != 0
    left = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert left == []
    assert list((tmp_path / "scratch").iterdir()) == []


def test_many_tasks_that_fail_at_once_end_the_stage(tmp_path, small_items):
    content = gzip.compress(b"".join(row for rows in good_parts().values() for row in rows))
    write_parts(tmp_path / "data", {f"part-{n}.gz": [content[:-20]] for n in range(12)})
    for attempt in range(3):
        with pytest.raises(RecordError, match="end of the gzip stream"):
            run(settings(tmp_path, "preprocess.workers=3", run_id=f"run-{attempt}"))
    assert not workers_alive()


def test_a_run_whose_class_map_is_gone_does_not_take_its_labels_for_class_ids(
    tmp_path, small_items, monkeypatch
):
    rows = [line(n, 0).replace(b"\t0", b"\tname-%d" % (n % 5)) for n in range(60)]
    write_parts(tmp_path / "data", {"part": rows})
    work = workforce.Workforce.run

    def robbed(self, task, numbers, advance):
        if task == "reduce":
            (labels,) = Path(tmp_path).rglob("labels.i64")
            labels.unlink()
        work(self, task, numbers, advance)

    monkeypatch.setattr(workforce.Workforce, "run", robbed)
    with pytest.raises(StorageError, match=r"labels\.i64"):
        run(settings(tmp_path, "preprocess.labels=names"))


def kill_workers(patch, *, first=frozenset(), always=frozenset()):
    """Let the workers that get these tasks be killed with the task in hand, once or always."""
    victims = []
    do = workforce._Worker.do

    def die(worker, task, number, advance):
        if (task, number) in always or ((task, number) in first and (task, number) not in victims):
            victims.append((task, number))
            worker._process.send_signal(signal.SIGSTOP)
            threading.Timer(0.1, worker._process.kill).start()
        do(worker, task, number, advance)

    patch.setattr(workforce._Worker, "do", die)
    return victims


@pytest.mark.slow
def test_no_worker_outlives_a_killed_driver(tmp_path):
    write_parts(tmp_path / "data", good_parts(num_rows=5_000))
    driver = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import signal, sys; from pathlib import Path\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from plsc.preprocess.shuffle import planning\n"
            "from plsc.preprocess.stage import run\n"
            "from tests.preprocess.rows import settings\n"
            "planning._SMALLEST_ITEM_BYTES = 5_000\n"
            "run(settings(Path(sys.argv[1]), 'preprocess.workers=2'))",
            str(tmp_path),
        ],
        stdout=subprocess.DEVNULL,
    )
    process = psutil.Process(driver.pid)
    workers = []
    while len(workers) < 2 and driver.poll() is None:
        time.sleep(0.02)
        workers = process.children()
    assert len(workers) == 2
    driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def test_a_run_that_loses_its_work_to_a_faster_one_takes_over_its_data_set(
    tmp_path, expected, small_items, monkeypatch
):
    write_parts(tmp_path / "data", good_parts())
    work = workforce.Workforce.run
    nested = []

    def overtaken(self, task, numbers, advance):
        if task == "reduce" and not nested:
            nested.append(True)
            nested.append(run(settings(tmp_path, run_id="faster")))
        work(self, task, numbers, advance)

    monkeypatch.setattr(workforce.Workforce, "run", overtaken)
    config = settings(tmp_path, run_id="slower")
    dataset = run(config)
    assert digests_of(dataset) == expected == digests_of(nested[1])
    assert ShardSet.read(dataset.uri).provenance.run_id == "faster"
    assert ShardSet.read(doorway.index_uri(config, "preprocess")).provenance.run_id == "slower"
    assert not [path for path in Path(config.store_uri).rglob("work/**/*") if path.is_file()]


@pytest.mark.slow
def test_two_runs_at_once_give_the_same_data_set(tmp_path, expected):
    write_parts(tmp_path / "data", good_parts())
    program = (
        "import sys; from pathlib import Path\n"
        "from plsc.preprocess.stage import run\n"
        "from tests.preprocess.rows import digests_of, settings\n"
        "print(*digests_of(run(settings(Path(sys.argv[1]), run_id=sys.argv[2]))))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), f"run-{n}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    told = [one.communicate()[0].split() for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert told == [expected, expected]
    assert not [path for path in tmp_path.rglob("work/**/*") if path.is_file()]


def test_a_full_disk_is_a_storage_error_and_leaves_nothing_half_done(tmp_path):
    write_parts(tmp_path / "data", good_parts())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    full = python(
        """
import resource, sys
from pathlib import Path
from plsc.errors import StorageError
from plsc.preprocess.stage import run
from tests.preprocess.rows import settings
config = settings(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000,) * 2)
try:
    run(config)
except StorageError as error:
    sys.exit(str(error))
""",
        tmp_path,
        TMPDIR=str(scratch),
    )
    assert full.returncode == 1, full.stderr
    assert "check that the disk has room" in full.stderr
    assert "File too large" in full.stderr
    assert list(scratch.iterdir()) == []
    assert not list((tmp_path / "store").rglob("index.json"))
    assert not [path for path in (tmp_path / "store").rglob("work/**/*") if path.is_file()]
    assert not list((tmp_path / "store").rglob("*.part"))
