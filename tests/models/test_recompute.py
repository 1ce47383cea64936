"""Gradient checkpointing: less memory, and not one bit of the result changes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from plsc.conf.schema import ModelConfig
from plsc.errors import ConfigError
from plsc.models import build, checkpoint_gradients
from tests.train.ranks import on_ranks

SIZE = 32
SMALL = ["glyphnet", "iresnet18", "mobilefacenet", "vit_tiny"]  # iResNets differ in depth alone


class Dropping(nn.Module):
    """A backbone with what is hard to compute twice: dropout and batch norm inside its blocks."""

    def __init__(self, *, embedding_size, image_size, dropout):
        super().__init__()
        blocks = [self._block(3 * image_size**2, 16), self._block(16, embedding_size)]
        self.stages = nn.Sequential(*blocks)

    @staticmethod
    def _block(inputs, outputs):
        return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.Dropout(0.5))

    def forward(self, images):
        return self.stages(images.flatten(1))


def backbone_called(name):
    torch.manual_seed(0)
    return build(ModelConfig(name=name, embedding_size=8, dropout=0.3), SIZE).train()


def images(seed=1, batch=4):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(batch, 3, SIZE, SIZE, generator=generator) * 2 - 1
    return pixels.to(memory_format=torch.channels_last)


def outcome(model, backbone, pixels, *, steps=2, is_bf16=False):
    """Return all that a few steps of training leave: losses, gradients and buffers, by name."""
    found = {}
    for step in range(steps):
        torch.manual_seed(step)  # dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            embeddings = model(pixels)
        loss = embeddings.float().square().mean() + embeddings.float()[:, 0].exp().sum()
        loss.backward()
        found[f"loss {step}"] = loss.detach()
        found[f"random number after step {step}"] = torch.rand(1)
    found |= {name: p.grad for name, p in backbone.named_parameters() if p.requires_grad}
    return found | {name: buffer.clone() for name, buffer in backbone.named_buffers()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].equal(value), name


@pytest.mark.parametrize("is_bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", [*SMALL, "tests.models.test_recompute:Dropping"])
def test_loss_gradients_and_buffers_stay_what_they_were(name, is_bf16):
    plain = backbone_called(name)
    recomputed = copy.deepcopy(plain)
    checkpoint_gradients(recomputed)
    expected = outcome(plain, plain, images(), is_bf16=is_bf16)
    assert_same(outcome(recomputed, recomputed, images(), is_bf16=is_bf16), expected)


def test_random_numbers_are_the_same_for_dropout_inside_a_block():
    """Else the test above, whose dropout is that of this class, would show nothing."""
    one, other = (backbone_called("tests.models.test_recompute:Dropping") for _ in range(2))
    torch.manual_seed(5)
    first = one(images())
    assert not first.equal(other(images()))


@pytest.mark.parametrize(
    ("name", "fraction"),
    [
        ("glyphnet", 0.5),
        ("iresnet18", 0.5),
        ("mobilefacenet", 0.25),
        ("vit_tiny", 0.15),
    ],
)
def test_little_is_kept_for_the_backward_pass(name, fraction):
    plain = backbone_called(name)
    recomputed = copy.deepcopy(plain)
    checkpoint_gradients(recomputed)
    assert bytes_kept(recomputed) < fraction * bytes_kept(plain)


def bytes_kept(backbone):
    """Return the bytes of activations that autograd keeps; weights are there anyway."""
    weights = {tensor.data_ptr() for tensor in backbone.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held: no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        embeddings = backbone(images(batch=8))
    del embeddings
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("name", SMALL)
def test_the_state_dict_keeps_its_keys(name):
    plain, recomputed = backbone_called(name), backbone_called(name)
    checkpoint_gradients(recomputed)
    assert list(recomputed.state_dict()) == list(plain.state_dict())
    assert [key for key, _ in recomputed.named_parameters()] == [
        key for key, _ in plain.named_parameters()
    ]
    recomputed.load_state_dict(plain.state_dict())
    assert recomputed.eval()(images()).equal(plain.eval()(images()))


def test_nothing_is_recomputed_where_there_is_no_backward_pass():
    backbone = backbone_called("glyphnet").eval()
    checkpoint_gradients(backbone)
    with torch.inference_mode():
        embeddings = backbone(images())
    assert embeddings.equal(backbone(images()))


def test_a_copy_trains_on_its_own():
    original = backbone_called("glyphnet")
    checkpoint_gradients(original)
    twin = copy.deepcopy(original)
    twin(images()).sum().backward()
    assert all(parameter.grad is None for parameter in original.parameters())
    assert original.stages[0][1].num_batches_tracked == 0
    assert twin.stages[0][1].num_batches_tracked == 1


def test_batch_norm_forgets_no_statistics_when_the_backward_pass_fails():
    backbone = backbone_called("glyphnet")
    checkpoint_gradients(backbone)
    embeddings = backbone(images())
    buffers = dict(backbone.named_buffers())
    backbone.stages[3].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embeddings.sum().backward()
    after = dict(backbone.named_buffers())
    assert all(after[name] is buffer for name, buffer in buffers.items())


@pytest.mark.slow
def test_a_compiled_backbone_notes_each_batch_once_too():
    plain = backbone_called("glyphnet").double()
    plain.embed[1].p = 0.0  # compiled dropout draws other numbers
    recomputed = copy.deepcopy(plain)
    checkpoint_gradients(recomputed)
    keys = list(plain.state_dict())
    compiled = torch.compile(recomputed, backend="aot_eager_decomp_partition")
    expected = outcome(plain, plain, images().double())
    found = outcome(compiled, recomputed, images().double())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert list(recomputed.state_dict()) == keys


class Shapeless(nn.Module):
    def __init__(self, stages):
        super().__init__()
        if stages is not None:
            self.stages = stages


@pytest.mark.parametrize(
    ("stages", "found"),
    [(None, "Shapeless has none"), (nn.ModuleList([nn.Identity()]), "Shapeless has a ModuleList")],
)
def test_a_backbone_without_blocks_is_told_what_is_expected(stages, found):
    with pytest.raises(ConfigError, match=f"attribute stages, an nn.Sequential .*{found}.*gather"):
        checkpoint_gradients(Shapeless(stages))


def on_a_rank(ranks, is_recomputed):
    backbone = backbone_called("glyphnet")
    if is_recomputed:
        checkpoint_gradients(backbone)
    model = DistributedDataParallel(
        backbone, forward_sync_buffers=False, gradient_as_bucket_view=True
    )
    return outcome(model, backbone, images(seed=ranks.rank), is_bf16=True)


@pytest.mark.slow
def test_two_ranks_average_the_same_gradients():
    plain, recomputed = on_ranks(2, on_a_rank, [(False,), (True,)])
    for expected, found in zip(plain, recomputed, strict=True):
        assert_same(found, expected)
    assert recomputed[0]["stages.0.0.weight"].equal(recomputed[1]["stages.0.0.weight"])
    assert not recomputed[0]["loss 0"].equal(recomputed[1]["loss 0"])
