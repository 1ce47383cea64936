"""Backbones: by name, of your own, and back from a checkpoint."""

import numpy as np
import pytest
import torch
from torch import nn

from plsc.conf.schema import ModelConfig
from plsc.errors import CheckpointError, ConfigError
from plsc.models import as_embedder, build, names, restore
from tests.samples import tiny, write_checkpoint


class Mine(nn.Module):
    """A backbone of a user's own."""

    def __init__(self, *, embedding_size, image_size, dropout):
        super().__init__()
        self.linear = nn.Linear(3 * image_size**2, embedding_size)

    def forward(self, images):
        return self.linear(images.flatten(1))


@pytest.mark.parametrize("name", ["glyphnet", "iresnet18", "iresnet50"])
def test_backbone_gives_embeddings_of_the_asked_size(name):
    backbone = build(ModelConfig(name=name, embedding_size=24), 32).eval()
    assert backbone(torch.zeros(2, 3, 32, 32)).shape == (2, 24)


def test_iresnet50_has_the_published_size():
    backbone = build(ModelConfig(name="iresnet50", embedding_size=512), 112)
    assert sum(p.numel() for p in backbone.parameters()) == pytest.approx(43.59e6, rel=1e-3)


def test_all_published_depths_are_there():
    assert {f"iresnet{n}" for n in (18, 34, 50, 100, 152)} <= set(names())


def test_own_class_is_built_by_its_place():
    backbone = build(ModelConfig(name="tests.models.test_backbones:Mine", embedding_size=5), 8)
    assert backbone(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("resnet", 32, "expected package.module:Class, or one of .*glyphnet"),
        ("no.such:Thing", 32, "cannot be imported: No module named 'no'"),
        ("tests.models.test_backbones:Gone", 32, "cannot be imported"),
        ("glyphnet", 30, "image_size must be a multiple of 16, not 30"),
    ],
)
def test_what_cannot_be_built_is_named(name, size, words):
    with pytest.raises(ConfigError, match=words):
        build(ModelConfig(name=name), size)


def test_embedder_evaluates_and_puts_the_mode_back():
    backbone = build(ModelConfig(name="glyphnet", embedding_size=8), 16).train()
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    embed = as_embedder(backbone)
    assert np.array_equal(embed(images), embed(images))
    assert backbone.training
    assert embed(images).dtype == np.float32


def test_restored_backbone_computes_what_was_saved(tmp_path):
    config = tiny(tmp_path)
    checkpoint = write_checkpoint(config)
    backbone = restore(checkpoint)
    assert not backbone.training
    assert backbone(torch.zeros(1, 3, 32, 32)).equal(restore(checkpoint)(torch.zeros(1, 3, 32, 32)))


def test_checkpoint_of_another_model_is_refused(tmp_path):
    checkpoint = write_checkpoint(tiny(tmp_path))
    config = checkpoint.provenance.config
    other = config | {"model": config["model"] | {"embedding_size": 16}}
    provenance = checkpoint.provenance.model_copy(update={"config": other})
    with pytest.raises(CheckpointError, match="does not fit model glyphnet"):
        restore(checkpoint.model_copy(update={"provenance": provenance}))
