"""Some steps of training a head, taken by it and by the textbook, and how far they are apart."""

import dataclasses

import pytest
import torch

from plsc.conf.schema import Distribution, HeadConfig, HeadUpdate, Loss, Optimizer, OptimizerConfig
from plsc.train.head import HeadStep, Margin, ShardedHead
from plsc.train.process_group import Ranks
from tests.train.reference import (
    dense_loss,
    margin_by_arccos,
    margin_by_polynomial,
    torch_optimizer,
)

ALONE = Ranks(0, 1, torch.device("cpu"))
SGD = OptimizerConfig(name=Optimizer.sgd, momentum=0.9, weight_decay=0.01)
ADAMW = OptimizerConfig(name=Optimizer.adamw, momentum=0.9, weight_decay=0.01)
LR = 0.05
MARGINS = {Loss.arcface: 0.5, Loss.cosface: 0.35, Loss.sphereface: 1.7}


def configured(loss=Loss.arcface, **settings) -> HeadConfig:
    settings = {"scale": 16.0, "chunk_size": 4, "margins": [1.2, 0.3, 0.1]} | settings
    return HeadConfig(loss=loss, margin=MARGINS.get(loss, 0.0), **settings)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Some steps of training a head, made from a seed."""

    config: HeadConfig
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: SGD)
    num_classes: int = 11
    embedding_size: int = 16
    batch_size: int = 12
    dtype: torch.dtype = torch.float64
    steps: int = 3
    extremes: bool = False

    def batch(self, step, centers=None):
        generator = torch.Generator().manual_seed(step)
        size = (self.batch_size, self.embedding_size)
        embeddings = torch.randn(size, generator=generator, dtype=torch.float64)
        labels = torch.randint(0, self.num_classes, (self.batch_size,), generator=generator)
        if self.extremes and centers is not None:
            embeddings[0] = 3 * centers[labels[0]]
            embeddings[1] = -2 * centers[labels[1]]
        labels[-2:] = -1
        return embeddings, labels


def trained(ranks: Ranks, problem: Problem) -> dict:
    """Take the steps on this rank: losses, the embeddings' gradients, the head's rows."""
    head = ShardedHead(
        problem.config, problem.optimizer, num_classes=problem.num_classes,
        embedding_size=problem.embedding_size, ranks=ranks, seed=7, dtype=problem.dtype,
    )  # fmt: skip
    plain = None
    if head.update is HeadUpdate.plain:
        plain = torch_optimizer(problem.optimizer, head.weight, head.bias)
    first = {"losses": [], "gradients": [], "initial": head.weight.detach().clone()}
    margin = Margin.of(problem.config)
    for step in range(problem.steps):
        centers = torch.cat([*gathered_rows(head.weight.detach(), ranks)])
        embeddings, labels = problem.batch(step, centers.double())
        size = -(-problem.batch_size // ranks.world_size)
        own = slice(ranks.rank * size, (ranks.rank + 1) * size)
        local = torch.zeros(size, problem.embedding_size, dtype=problem.dtype)
        local_labels = torch.full((size,), -1)
        count = len(labels[own])
        local[:count], local_labels[:count] = embeddings[own].to(problem.dtype), labels[own]
        local.requires_grad_()
        output = head(local, local_labels, HeadStep(step, LR, margin, count_correct=True))
        output.loss.backward()
        if head.update is HeadUpdate.deferred:
            first["norm"] = head.gradient_norm_squared().item()
            head.apply_update()
        if plain is not None:
            head.reduce_gradients()
            first.setdefault("weight_grad", head.weight.grad.clone())
            for group in plain.param_groups:
                group["lr"] = LR
            plain.step()
            plain.zero_grad()
        first["losses"].append(output.loss.item())
        first["gradients"].append(local.grad[:count] / ranks.world_size)
        first["correct"] = (output.correct_1.item(), output.correct_5.item())
    return first | {name: rows.clone() for name, rows in head.state_rows().items()}


def gathered_rows(rows, ranks):
    return ranks.gather_objects(rows)[: ranks.world_size]


def reference(problem: Problem, initial: torch.Tensor) -> dict:
    """The same steps by the textbook, in float64."""
    weight = initial.double().requires_grad_()
    bias = None
    if problem.config.loss is Loss.softmax:
        bias = torch.zeros(problem.num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch_optimizer(problem.optimizer, weight, bias)
    results = {"losses": [], "gradients": []}
    for step in range(problem.steps):
        embeddings, labels = problem.batch(step, weight.detach())
        embeddings.requires_grad_()
        loss = dense_loss(
            problem.config.loss, embeddings, weight, bias, labels,
            Margin.of(problem.config), problem.config.scale,
            with_margin=margin_by_polynomial if problem.extremes else margin_by_arccos,
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        results["losses"].append(loss.item())
        results["gradients"].append(embeddings.grad)
        results.setdefault("weight_grad", weight.grad.clone())
        results["norm"] = sum(p.grad.norm().item() ** 2 for p in (weight, bias) if p is not None)
        for group in optimizer.param_groups:
            group["lr"] = LR
        optimizer.step()
    return results | {"weight": weight.detach(), "bias": None if bias is None else bias.detach()}


def assert_close(found, expected, tolerance):
    error = (found.double() - expected).norm() / expected.norm().clamp_min(1e-3)
    assert error < tolerance, error


def assert_equals_reference(problem, outputs, tolerance):
    replicated = problem.config.distribution is Distribution.replicated

    def whole(name):
        return outputs[0][name] if replicated else torch.cat([o[name] for o in outputs])

    expected = reference(problem, whole("initial"))
    for output in outputs:
        for one, other in zip(output["losses"], expected["losses"], strict=True):
            assert one == pytest.approx(other, rel=tolerance, abs=tolerance)
    for step in range(problem.steps):
        gradients = torch.cat([o["gradients"][step] for o in outputs])
        assert_close(gradients, expected["gradients"][step], tolerance)
    assert_close(whole("weight"), expected["weight"], tolerance)
    if expected["bias"] is not None:
        assert_close(whole("bias"), expected["bias"], tolerance)
    if "weight_grad" in outputs[0]:
        assert_close(whole("weight_grad"), expected["weight_grad"], tolerance)
    if "norm" in outputs[0]:
        for output in outputs:
            assert output["norm"] == pytest.approx(expected["norm"], rel=tolerance)
