"""Backbones: by name, of your own, and back from a checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from plsc import conf
from plsc.conf import compose
from plsc.conf.schema import ModelConfig
from plsc.errors import CheckpointError, ConfigError
from plsc.models import as_embedder, build, names, restore
from tests.samples import tiny, write_checkpoint

CONFIGURED = sorted(path.stem for path in (Path(conf.__file__).parent / "model").glob("*.yaml"))


class Mine(nn.Module):
    """A backbone of a user's own."""

    def __init__(self, *, embedding_size, image_size, dropout):
        super().__init__()
        self.linear = nn.Linear(3 * image_size**2, embedding_size)

    def forward(self, images):
        return self.linear(images.flatten(1))


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("image_size", [32, 48, 64])
@pytest.mark.parametrize(
    "name", ["glyphnet", "iresnet18", "iresnet50", "mobilefacenet", "vit_tiny"]
)
def test_backbone_gives_embeddings_of_the_asked_size(name, image_size):
    backbone = build(ModelConfig(name=name, embedding_size=24), image_size).eval()
    embeddings = backbone(torch.zeros(2, 3, image_size, image_size))
    assert embeddings.shape == (2, 24)
    assert embeddings.dtype == torch.float32


@pytest.mark.parametrize("name", ["glyphnet", "iresnet18", "mobilefacenet", "vit_tiny"])
def test_the_layout_of_the_images_is_free(name):
    torch.manual_seed(0)
    backbone = build(ModelConfig(name=name, embedding_size=16), 32).eval()
    images = torch.rand(3, 3, 32, 32)
    expected = functional.normalize(backbone(images))
    for model in (backbone, backbone.to(memory_format=torch.channels_last)):
        found = functional.normalize(model(images.to(memory_format=torch.channels_last)))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["glyphnet", "mobilefacenet", "vit_tiny"])
def test_the_loss_of_a_few_images_falls(name):
    torch.manual_seed(0)
    backbone = build(ModelConfig(name=name, embedding_size=16), 32).train()
    images, labels = torch.rand(8, 3, 32, 32) * 2 - 1, torch.arange(8) % 4
    centers = nn.Parameter(torch.randn(4, 16) * 0.1)
    optimizer = torch.optim.AdamW([*backbone.parameters(), centers], lr=1e-3)
    losses = []
    for _ in range(12):
        loss = functional.cross_entropy(backbone(images) @ centers.T, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", CONFIGURED)
def test_every_backbone_of_the_configuration_is_registered(name):
    config = compose("glyphs", "run_id=test", f"model={name}").model
    assert config.name == name
    with torch.device("meta"):
        build(config, 112)


def test_every_registered_backbone_can_be_configured():
    # What Entry was given in another test is registered too, for this process.
    assert [name for name in names() if not name.startswith("entry-")] == CONFIGURED


def test_iresnet50_has_the_published_size():
    backbone = build(ModelConfig(name="iresnet50", embedding_size=512), 112)
    assert num_parameters(backbone) == pytest.approx(43.59e6, rel=1e-3)


def test_mobilefacenet_has_the_published_size_and_work():
    """arXiv 1804.07573, table 2: 0.99 million parameters; section 3.3: 221 million MAdds."""
    backbone = build(ModelConfig(name="mobilefacenet", embedding_size=128), 112).eval()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    folded = num_parameters(backbone) - sum(norm.weight.numel() for norm in norms)
    assert folded == pytest.approx(0.99e6, abs=0.005e6), "a batch norm folded in is one bias"
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(torch.zeros(1, 3, 112, 112))
    assert counter.get_total_flops() / 2 == pytest.approx(221e6, rel=1e-3)


def test_vit_tiny_has_the_blocks_of_its_paper():
    """12 blocks of 12 width^2 weights, 9 width biases and 4 width of two norms: DeiT-Ti's 5.7 M."""
    backbone = build(ModelConfig(name="vit_tiny", embedding_size=128), 112)
    assert num_parameters(backbone.stages) == 12 * (12 * 192**2 + 13 * 192)
    assert backbone.positions_TW.shape == (14 * 14, 192)


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
        ("mobilefacenet", 120, "image_size must be a multiple of 16, not 120"),
        ("vit_tiny", 30, "image_size must be a multiple of 4, not 30"),
        ("vit_tiny", 68, "image_size must be a multiple of 8, not 68"),
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
    with pytest.raises(CheckpointError, match=r"does not fit .*glyphnet"):
        restore(checkpoint.model_copy(update={"provenance": provenance}))
