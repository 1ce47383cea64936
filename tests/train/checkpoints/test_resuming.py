"""Resuming: what is refused, what is offered instead, and that no more is read than needed."""

import hashlib
import json

import pytest
import torch

from plsc import storage
from plsc.errors import CheckpointError, StorageError
from plsc.train.checkpoints import resuming as resume_module
from plsc.train.checkpoints import snapshot
from plsc.train.checkpoints.resuming import load, read_rows, resume
from plsc.train.checkpoints.retention import checkpoints_uri
from plsc.train.loss_scale import LossScale
from plsc.train.partition import partition_classes
from tests.train.states import ALONE, CLASSES, configured, fresh, saved, state_of, stepped


@pytest.fixture
def two(tmp_path):
    """The configuration of a run with checkpoints of steps 2 and 4, and these."""
    config = configured(tmp_path)
    state = stepped(fresh(config))
    older = saved(state, config)
    return config, older, saved(stepped(state), config)


def damage(uri):
    content = bytearray(storage.read_bytes(uri))
    content[-1] ^= 1
    storage.write_bytes(uri, bytes(content))


OFFER = "; an older checkpoint of step 2 is there: resume with train.resume_step=2$"


def test_altered_file_is_named_and_an_older_checkpoint_offered(two):
    config, _, newest = two
    damage(newest.head[0].uri)
    with pytest.raises(
        CheckpointError, match=rf"head-0000000000.safetensors was altered: .*SHA-256.*{OFFER}"
    ):
        resume(fresh(config), config)
    chosen = configured(config.store_uri, "train.resume_step=2")
    state = fresh(chosen)
    assert resume(state, chosen).step == state.step == 2


def test_missing_file_is_named_and_an_older_checkpoint_offered(two):
    config, _, newest = two
    storage.delete(newest.backbone.uri)
    with pytest.raises(CheckpointError, match=rf"backbone.safetensors is missing: .*{OFFER}"):
        resume(fresh(config), config)


def test_damaged_index_is_told_and_an_older_checkpoint_offered(two):
    config, _, newest = two
    document = json.loads(storage.read_bytes(newest.index_uri))
    document["step"] = "many"
    storage.write_bytes(newest.index_uri, json.dumps(document).encode())
    with pytest.raises(
        CheckpointError, match=rf"index of kind Checkpoint, version 1, but step.*{OFFER}"
    ):
        resume(fresh(config), config)


def test_damage_of_the_only_checkpoint_is_told_without_an_offer(two):
    config, older, newest = two
    storage.delete(newest.index_uri)
    damage(older.backbone.uri)
    with pytest.raises(CheckpointError, match=r"there is no older checkpoint$"):
        resume(fresh(config), config)


def test_file_that_is_no_safetensors_is_refused(two):
    config, _, newest = two
    storage.write_bytes(newest.backbone.uri, b"x")
    backbone = newest.backbone.model_copy(update={"sha256": hashlib.sha256(b"x").hexdigest()})
    newest.model_copy(update={"backbone": backbone}).write(newest.index_uri)
    with pytest.raises(CheckpointError, match=r"backbone\.safetensors is no safetensors file"):
        resume(fresh(config), config)


def test_store_that_cannot_be_asked_is_no_damage(two, monkeypatch):
    config, _, _ = two

    def refused(uri, path):
        raise StorageError(f"{uri}: refused")

    monkeypatch.setattr(storage, "download", refused)
    with pytest.raises(StorageError, match=r"refused$"):
        resume(fresh(config), config)


def test_step_that_is_not_there_is_refused_with_those_that_are(two):
    config, _, _ = two
    config.train.resume_step = 3
    with pytest.raises(
        CheckpointError, match=r"train.resume_step=3: .*checkpoints, found those of steps 2, 4: ch"
    ):
        resume(fresh(config), config)


def test_nothing_to_resume_is_none_unless_asked_for(tmp_path):
    config = configured(tmp_path)
    state = fresh(config)
    assert resume(state, config) is None
    config.train.resume_run = "nobody"
    with pytest.raises(CheckpointError, match=r"train\.resume_run=nobody: expected a checkpoint"):
        resume(state, config)
    config.train.resume_run, config.train.resume_step = "", 5
    with pytest.raises(CheckpointError, match=r"train\.resume_step=5: expected .* found none"):
        resume(state, config)


def test_a_run_begun_from_another_goes_on_from_its_own_checkpoint_once_it_has_one(two):
    given, _, _ = two
    begun = ("train.resume_run=first", "train.resume_step=2")
    config = configured(given.store_uri, *begun, run_id="second")
    state = fresh(config)
    assert resume(state, config).step == 2  # of the other run
    saved(stepped(state, steps=1), config)
    again = fresh(config)  # as after an interruption: asked for in the same words
    assert resume(again, config).step == 3
    for found, expected in zip(state_of(again), state_of(state), strict=True):
        assert all(found[name].equal(values) for name, values in expected.items())


@pytest.mark.parametrize(
    ("overrides", "classes", "message"),
    [
        ((), 8, "has num_classes 7, this run has 8"),
        (("model.embedding_size=16",), 7, "has embedding_size 8, this run has 16"),
        (("model.name=iresnet18",), 7, "has model.name glyphnet, this run has iresnet18"),
        (("train.optimizer.name=sgd",), 7, "has optimizer adamw, this run has sgd"),
    ],
)
def test_checkpoint_of_another_run_is_refused_and_finetuning_named(
    two, overrides, classes, message
):
    given, _, newest = two
    config = configured(given.store_uri, *overrides)
    state = fresh(config, classes=classes)
    with pytest.raises(CheckpointError, match=message) as refused:
        resume(state, config)
    assert f"train.finetune_from={newest.index_uri}" in str(refused.value)
    assert "train.finetune_head=true" in str(refused.value)
    assert state.step == 0


def test_loss_that_needs_a_bias_is_refused_where_there_is_none(two):
    given, _, _ = two
    config = configured(given.store_uri, "train.head.loss=softmax")
    with pytest.raises(CheckpointError, match=r"has no bias of the classes.*train\.head\.loss"):
        resume(fresh(config), config)


def test_loss_scale_comes_back(tmp_path):
    config = configured(tmp_path)
    state = stepped(fresh(config))
    state.loss_scale = LossScale(config.train.loss_scale)
    state.loss_scale.value = 1024.0
    assert saved(state, config).loss_scale["value"] == 1024.0
    again = fresh(config)
    again.loss_scale = LossScale(config.train.loss_scale)
    resume(again, config)
    assert again.loss_scale.state() == state.loss_scale.state()


def test_checkpoint_that_lacks_a_block_is_refused(two, monkeypatch):
    monkeypatch.setattr(snapshot, "_ROWS_PER_BLOCK", 3)
    config, _, _ = two
    state = stepped(fresh(config))
    checkpoint = saved(state, config)
    assert [block.classes for block in checkpoint.head] == [range(3), range(3, 6), range(6, 7)]
    load(fresh(config), checkpoint)
    for lost, first in ((0, 0), (1, 3), (2, 6)):
        head = [block for n, block in enumerate(checkpoint.head) if n != lost]
        with pytest.raises(CheckpointError, match=rf"has no row of class {first}, expected 0\.\.6"):
            load(fresh(config), checkpoint.model_copy(update={"head": head}))


def test_rows_come_from_whatever_blocks_hold_them(two, monkeypatch):
    config, _, _ = two
    state = stepped(fresh(config))
    for rows_per_block in (1, 2, 3, 7, 100):
        monkeypatch.setattr(snapshot, "_ROWS_PER_BLOCK", rows_per_block)
        checkpoint = saved(state, config)
        for rank in range(3):
            own = partition_classes(CLASSES, 3, rank)
            rows = read_rows(checkpoint, own, into={})
            assert rows["weight"].equal(state.head.weight[own.start : own.stop])
            assert rows["optimizer/weight/exp_avg"].shape == (len(own), 8)
            assert rows["optimizer/weight/step"] == 2


def test_rows_are_written_where_they_belong_without_a_copy(two):
    config, _, newest = two
    state = fresh(config)
    live = state.head.state_rows()
    rows = read_rows(newest, state.head.classes, into=live)
    assert {name for name in rows if rows[name] is live[name]} == {
        "weight", "optimizer/weight/exp_avg", "optimizer/weight/exp_avg_sq",
    }  # fmt: skip


def test_only_the_blocks_with_own_rows_are_fetched(two, monkeypatch):
    config, _, _ = two
    monkeypatch.setattr(snapshot, "_ROWS_PER_BLOCK", 2)
    checkpoint = saved(stepped(fresh(config)), config)
    fetched = []
    opened = resume_module.opened
    monkeypatch.setattr(
        resume_module, "opened", lambda block: fetched.append(block.first_class) or opened(block)
    )
    read_rows(checkpoint, range(2, 5), into={})
    assert fetched == [2, 4]


@pytest.mark.services
def test_checkpoint_goes_through_an_object_store(bucket_uri, monkeypatch):
    monkeypatch.setattr(snapshot, "_ROWS_PER_BLOCK", 3)
    config = configured(bucket_uri)
    state = stepped(fresh(config))
    checkpoint = saved(state, config, ALONE, loss=1.0)
    assert checkpoint.backbone.uri.startswith(checkpoints_uri(config, "first"))
    again = fresh(config)
    assert resume(again, config) == checkpoint
    for expected, found in zip(state_of(state), state_of(again), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    storage.delete(checkpoint.head[1].uri)
    with pytest.raises(CheckpointError, match=r"head-0000000003\.safetensors is missing"):
        resume(fresh(config), config)
