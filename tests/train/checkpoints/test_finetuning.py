"""Fine-tuning: which weights are taken over, and which mismatches are refused."""

import pytest
import torch

from plsc.errors import CheckpointError, StorageError
from plsc.train.checkpoints.finetuning import finetune
from plsc.train.checkpoints.slots import slots
from tests.train.ranks import on_ranks
from tests.train.states import CLASSES, configured, copied, fresh, saved, stepped


@pytest.fixture
def trained(tmp_path):
    """A trained state and its checkpoint."""
    config = configured(tmp_path, "train.head.loss=softmax")
    state = stepped(fresh(config))
    return state, saved(state, config)


def finetuning(checkpoint, *overrides):
    return configured(
        checkpoint.provenance.config["store_uri"], "train.head.loss=softmax",
        f"train.finetune_from={checkpoint.index_uri}", *overrides, run_id="second",
    )  # fmt: skip


def test_only_the_backbones_weights_are_taken_over(trained):
    first, checkpoint = trained
    config = finetuning(checkpoint)
    state = fresh(config)
    before = copied(state.head.state_rows())
    finetune(state, config)
    torch.testing.assert_close(
        state.backbone.state_dict(), first.backbone.state_dict(), rtol=0, atol=0
    )
    torch.testing.assert_close(dict(state.head.state_rows()), before, rtol=0, atol=0)
    assert state.step == 0
    assert not slots(state.optimizer, state.backbone)
    stepped(state)


@pytest.mark.parametrize("classes", [3, CLASSES, 12])
@pytest.mark.parametrize("weight_dtype", ["fp32", "bf16"])
def test_class_centers_are_kept_by_class_id(trained, classes, weight_dtype):
    first, checkpoint = trained
    config = finetuning(
        checkpoint, "train.finetune_head=true", f"train.head.weight_dtype={weight_dtype}"
    )
    state = fresh(config, classes=classes)
    before = copied(state.head.state_rows())
    finetune(state, config)
    kept = min(classes, CLASSES)
    found = state.head.state_rows()
    for name in ("weight", "bias"):
        expected = first.head.state_rows()[name][:kept].to(found[name].dtype)
        assert found[name][:kept].equal(expected)
        assert found[name][kept:].equal(before[name][kept:])
    optimizer = {name for name in found if name.startswith("optimizer/")}
    assert optimizer
    assert all(found[name].equal(before[name]) for name in optimizer)


def finetuned(ranks, overrides):
    config = configured(*overrides, run_id="second")
    state = fresh(config, ranks, classes=12)
    finetune(state, config)
    return copied(state.head.state_rows())


def test_kept_and_new_rows_do_not_depend_on_the_ranks(trained):
    _, checkpoint = trained
    given = (
        checkpoint.provenance.config["store_uri"],
        f"train.finetune_from={checkpoint.index_uri}",
        "train.finetune_head=true",
    )
    ((alone,),) = on_ranks(1, finetuned, [(given,)])
    (shared,) = on_ranks(3, finetuned, [(given,)])
    assert torch.cat([rows["weight"] for rows in shared]).equal(alone["weight"])


def test_backbone_of_another_model_is_refused_with_its_settings(trained):
    _, checkpoint = trained
    config = finetuning(checkpoint, "model.embedding_size=16")
    with pytest.raises(
        CheckpointError,
        match=r"does not fit this model. Its run had model.name=glyphnet"
        r" model.embedding_size=8 image_size=16: set these",
    ):
        finetune(fresh(config), config)


def test_index_that_is_not_there_is_refused(trained):
    _, checkpoint = trained
    config = finetuning(checkpoint)
    config.train.finetune_from += ".old"
    with pytest.raises(StorageError, match=r"index\.json\.old: there is no such file"):
        finetune(fresh(config), config)
