"""The doorways: logging, the failure left in the store, exit codes, awkward values."""

import json
import logging

import pytest

from plsc import doorway, storage
from plsc.conf import compose
from plsc.errors import GateFailed, RecordError


@pytest.fixture
def config(tmp_path):
    return compose("tiny", "run_id=door", f"store_uri={tmp_path}")


def test_failure_leaves_its_reason_in_the_store(config):
    with pytest.raises(RecordError), doorway.enter("preprocess", config):
        raise RecordError("part 3 is missing")
    left = json.loads(storage.read_bytes(doorway.failure_uri(config, "preprocess")))
    assert left["error"] == "RecordError"
    assert left["message"] == "part 3 is missing"
    assert left["exit_code"] == 3


def test_unexpected_failure_leaves_its_reason_too(config):
    with pytest.raises(ZeroDivisionError), doorway.enter("train", config):
        _ = 1 / 0
    left = json.loads(storage.read_bytes(doorway.failure_uri(config, "train")))
    assert (left["error"], left["exit_code"]) == ("ZeroDivisionError", 1)


def test_store_that_cannot_take_the_reason_does_not_hide_the_error(tmp_path):
    (tmp_path / "file").write_text("")
    config = compose("tiny", "run_id=door", f"store_uri={tmp_path}/file/store")
    with pytest.raises(RecordError), doorway.enter("preprocess", config):
        raise RecordError("the real reason")


def test_main_ends_with_the_exit_code_of_the_error():
    with pytest.raises(SystemExit) as ended, doorway.main("evaluate"):
        raise GateFailed("too bad")
    assert ended.value.code == 4


def test_main_tells_a_mistake_that_comes_before_any_stage(capsys):
    with pytest.raises(SystemExit) as ended, doorway.main("train"):
        compose("tiny")
    assert ended.value.code == 2
    assert "[train] ConfigError: " in capsys.readouterr().out


def test_a_step_tells_its_error_once(tmp_path, capsys):
    with (
        pytest.raises(GateFailed),
        doorway.step(
            "gate", experiment="tiny", overrides=f"store_uri={tmp_path}", data_uri="", run_id="r"
        ),
    ):
        raise GateFailed("too bad")
    assert capsys.readouterr().out.count("GateFailed: too bad") == 1


def test_only_rank_0_logs_information(monkeypatch, capsys):
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with doorway.main("train"):
            logging.getLogger("plsc.train").info("from rank %s", rank)
            logging.getLogger("plsc.train").warning("warning of rank %s", rank)
    printed = capsys.readouterr().out
    assert "[train] from rank 0" in printed
    assert "from rank 1" not in printed
    assert "warning of rank 1" in printed


@pytest.mark.parametrize("value", ["a b", 'say "x"', "k=v,[1]{2}", "ü/ß", "$HOME", "it's"])
def test_step_hands_on_awkward_uris_unchanged(tmp_path, value):
    with doorway.step(
        "evaluate", experiment="tiny", overrides=f"store_uri={tmp_path}", data_uri=value,
        run_id="r", inputs={"evaluate.checkpoint_uri": value},
    ) as config:  # fmt: skip
        assert config.data_uri == value
        assert config.evaluate.checkpoint_uri == value


def test_overrides_win_over_parameters_and_inputs_win_over_all(tmp_path):
    with doorway.step(
        "export", experiment="tiny", data_uri="/data", run_id="job-1",
        overrides=f"run_id=mine store_uri={tmp_path} export.checkpoint_uri=/other",
        inputs={"export.checkpoint_uri": "/given"},
    ) as config:  # fmt: skip
        assert config.run_id == "mine"
        assert config.export.checkpoint_uri == "/given"


def test_an_empty_run_id_is_that_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(doorway.RUN_ID, "from-the-pod")
    given = {"experiment": "tiny", "overrides": f"store_uri={tmp_path}", "data_uri": ""}
    for run_id, expected in (("", "from-the-pod"), ("named", "named")):
        with doorway.step("preprocess", **given, run_id=run_id) as config:
            assert config.run_id == expected
