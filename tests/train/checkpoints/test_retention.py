"""Which checkpoints stay: the newest, the best, and nothing that was given up."""

import pytest

from plsc import storage
from plsc.train.checkpoints.retention import best, checkpoints_uri, index_uris, latest
from tests.train.states import configured, fresh, saved


@pytest.fixture
def state(tmp_path):
    return fresh(configured(tmp_path))


def steps_of(config):
    folder = checkpoints_uri(config, config.run_id)
    return {int(info.uri.split("/")[-2][5:]) for info in storage.list_objects(folder)}


def save_at(state, config, *steps, **figures):
    for state.step in steps:
        saved(state, config, **figures)


def test_only_the_newest_are_kept(tmp_path, state):
    config = configured(tmp_path, "train.keep_best=false")
    save_at(state, config, 2, accuracy=0.9)
    save_at(state, config, 3, 4, 5, accuracy=0.8)
    assert steps_of(config) == {4, 5}
    assert list(index_uris(config, "first")) == [4, 5]
    assert latest(config, "first").step == 5


def test_the_best_is_kept_beside_the_newest(tmp_path, state):
    config = configured(tmp_path)
    for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.9), (4, 0.7)):
        save_at(state, config, step, accuracy=accuracy)
    save_at(state, config, 5, 6)
    assert best(config, "first").step == 2  # the older of two
    assert steps_of(config) == {2, 5, 6}
    save_at(state, config, 9, accuracy=0.91)
    assert best(config, "first").step == 9
    assert steps_of(config) == {6, 9}


def test_a_run_that_was_never_verified_has_no_best(tmp_path, state):
    config = configured(tmp_path)
    assert best(config, "first") is None
    assert latest(config, "first") is None
    save_at(state, config, 1, 2, 3)
    assert best(config, "first") is None
    assert steps_of(config) == {2, 3}


def test_a_damaged_index_keeps_no_run_from_saving(tmp_path, state, caplog):
    config = configured(tmp_path)
    save_at(state, config, 1, 2, accuracy=0.5)
    storage.write_bytes(index_uris(config, "first")[2], b"{")
    save_at(state, config, 3)
    assert "cannot be the best checkpoint: " in caplog.text
    assert steps_of(config) == {1, 2, 3}


def test_a_folder_without_an_index_is_no_checkpoint_and_goes(tmp_path, state):
    config = configured(tmp_path)
    save_at(state, config, 2, 3)
    storage.delete(index_uris(config, "first")[3])
    storage.write_bytes(f"{checkpoints_uri(config, 'other')}/step-00000001/head", b"another run's")
    assert latest(config, "first").step == 2
    assert steps_of(config) == {2, 3}
    save_at(state, config, 4)
    assert steps_of(config) == {2, 4}
    assert list(storage.list_objects(checkpoints_uri(config, "other")))


def test_what_follows_an_older_step_replaces_the_course_that_was_given_up(tmp_path, state):
    config = configured(tmp_path, "train.keep_checkpoints=5")
    save_at(state, config, 2, 4, 6, accuracy=0.5)
    save_at(state, config, 3)
    assert steps_of(config) == {2, 3}
    assert latest(config, "first").step == 3


def test_a_checkpoint_of_the_same_step_is_replaced_whole(tmp_path, state):
    config = configured(tmp_path)
    save_at(state, config, 2)
    folder = index_uris(config, "first")[2].removesuffix("/index.json")
    storage.write_bytes(f"{folder}/head-0000000100.safetensors", b"of more ranks")
    save_at(state, config, 2)
    names = {info.uri.rpartition("/")[2] for info in storage.list_objects(folder)}
    assert names == {"backbone.safetensors", "head-0000000000.safetensors", "index.json"}
