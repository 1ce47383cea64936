import logging
import subprocess
import sys

import pytest

from plsc.artifacts.shards import ShardSet
from plsc.errors import ConfigError
from plsc.preprocess.step import run_step
from tests.preprocess.rows import SIZE, good_parts, write_parts


@pytest.fixture(autouse=True)
def _logging_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("plsc").setLevel(logging.NOTSET)


def overrides(folder):
    return f"store_uri={folder}/store image_size={SIZE}"


def test_a_step_hands_over_index_report_and_metadata(tmp_path):
    write_parts(tmp_path / "data", good_parts())
    metadata: dict[str, object] = {"display_name": "dataset"}
    run_step(
        "tiny",
        overrides(tmp_path),
        str(tmp_path / "data"),
        "run",
        dataset_path=str(tmp_path / "kfp" / "dataset"),
        metadata=metadata,
        report_path=str(tmp_path / "kfp" / "data_report"),
    )
    dataset = ShardSet.read(str(tmp_path / "kfp" / "dataset"))
    assert dataset.num_samples == 60
    assert metadata == {
        "display_name": "dataset",
        "samples": 60,
        "classes": 5,
        "shards": 1,
        "quarantined": 0,
    }
    assert (tmp_path / "kfp" / "data_report").read_text().startswith("<!doctype html>")


def test_a_step_with_a_typo_fails_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="preproces"):
        run_step(
            "tiny",
            overrides(tmp_path) + " preproces.num_classes=3",
            str(tmp_path / "data"),
            "run",
            dataset_path=str(tmp_path / "dataset"),
            metadata={},
            report_path=str(tmp_path / "report"),
        )
    assert list(tmp_path.iterdir()) == []


def doorway(folder, *more):
    return subprocess.run(
        [
            *(sys.executable, "-m", "plsc.preprocess", "experiment=tiny", "run_id=run"),
            *overrides(folder).split(),
            f"data_uri={folder}/data",
            *more,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_ends_with_0_and_with_3_when_too_much_is_bad(tmp_path):
    data = write_parts(tmp_path / "data", good_parts())
    done = doorway(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[preprocess] 60 samples of 5 classes in 1 shards, 0 rows in quarantine" in done.stdout
    with (data / "part-0.tsv").open("ab") as part:
        part.write(b"bad\n")
    failed = doorway(tmp_path)
    assert failed.returncode == 3
    assert "RecordError" in failed.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "store"]
    assert (tmp_path / "store" / "runs" / "run" / "preprocess" / "failure.json").is_file()
