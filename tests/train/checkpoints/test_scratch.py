"""The scratch folder: gone with its process, whatever ended that."""

import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from plsc.train.checkpoints.scratch import ScratchFolder

_HOLD = (
    "from plsc.train.checkpoints.scratch import ScratchFolder;"
    " print(ScratchFolder().path, flush=True); {}"
)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The machine's folder of temporary files, of this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def held_elsewhere(temporary, then="input()"):
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD.format(then)],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return process, process.stdout.readline().strip()


def test_folder_is_removed_with_what_is_in_it(temporary):
    folder = ScratchFolder()
    (folder.path / "deep").mkdir()
    (folder.path / "deep" / "file").write_text("x")
    folder.remove()
    assert not list(temporary.iterdir())


def test_folder_of_a_killed_process_goes_and_that_of_a_living_one_stays(temporary):
    process, path = held_elsewhere(temporary)
    try:
        ScratchFolder().remove()
        assert [str(left) for left in temporary.iterdir()] == [path]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert [str(left) for left in temporary.iterdir()] == [path]
    ScratchFolder().remove()
    assert not list(temporary.iterdir())


def test_folders_made_at_once_do_not_remove_each_other(temporary):
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: ScratchFolder(), range(200)))
    assert all(folder.path.is_dir() for folder in folders)
    assert len(list(temporary.iterdir())) == 200
    for folder in folders:
        folder.remove()
