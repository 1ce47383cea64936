"""The GPU's path without a GPU: on fake CUDA tensors whatever waits for a value fails."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from plsc.conf.schema import HeadConfig, HeadUpdate, Loss, Optimizer, OptimizerConfig, StateDtype
from plsc.train.head import HeadStep, Margin, ShardedHead, center_update
from plsc.train.head.inputs import check_embeddings, check_labels
from plsc.train.process_group import Ranks

FIRST_GPU = Ranks(0, 1, torch.device("cuda", 0))


class _FakeNoise:
    """A generator of a device that is not there cannot be made."""

    def __init__(self, device: torch.device) -> None:
        pass

    def restart(self, seed, step, rank) -> None:
        pass

    def bits(self, like):
        return torch.empty(like.shape, dtype=torch.int32, device=like.device)

    def fractions(self, like):
        return torch.empty(like.shape, device=like.device)


CONFIGS = [
    HeadConfig(),
    HeadConfig(loss=Loss.combined, margins=[1.2, 0.3, 0.1]),
    HeadConfig(loss=Loss.softmax),
    HeadConfig(sample_rate=0.1),
    HeadConfig(logits_cache_mib=1),
    HeadConfig(update=HeadUpdate.deferred),
    HeadConfig(update=HeadUpdate.plain),
    HeadConfig(momentum_dtype=StateDtype.int8, weight_dtype=StateDtype.bf16),
]


@pytest.mark.parametrize("optimizer", list(Optimizer))
@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_neither_sweep_waits_for_the_device(config, optimizer, monkeypatch):
    monkeypatch.setattr(center_update, "Noise", _FakeNoise)
    config.chunk_size = 300
    with FakeTensorMode(), torch.no_grad():
        head = ShardedHead(config, OptimizerConfig(name=optimizer), num_classes=1000,
                           embedding_size=32, ranks=FIRST_GPU, seed=0)  # fmt: skip
        x_GD = torch.empty(16, 32, device="cuda")
        labels_G = torch.empty(16, dtype=torch.int64, device="cuda")
        check_labels(labels_G, 1000, step=0, batch_size=16, first_rank=0)
        check_embeddings(x_GD, step=0, batch_size=16, first_rank=0)
        step = HeadStep(0, 0.1, Margin.of(config), count_correct=True)
        sweep, output = head._sweep(x_GD, labels_G, step)
        dx_GD = head._update.backward(sweep, torch.ones((), device="cuda"))
        if head.update is HeadUpdate.deferred:
            head.apply_update(1 / head.gradient_norm_squared())
    assert dx_GD.shape == x_GD.shape
    for tensor in (output.loss, output.correct_1, dx_GD, head.weight):
        assert tensor.device.type == "cuda"


def test_a_fake_tensor_notices_waiting():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.ones(3, device="cuda").sum().item()
