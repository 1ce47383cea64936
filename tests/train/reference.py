"""The textbook on one process: a dense float64 matrix of logits, autograd, torch's optimizers."""

import math

import torch
from torch.nn import functional

from plsc.conf.schema import Loss, Optimizer
from plsc.train.head import Margin


class _Value(torch.autograd.Function):
    """A margin whose derivative is 1: the straight-through mode."""

    @staticmethod
    def forward(ctx, cosines, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def margin_by_polynomial(cosines, margin: Margin):
    """The margin without an arccos, which autograd cannot pass at cosines of 1 and -1.

    For an added angle, with the sine held constant where it is below rounding; for a doubled one.
    """
    if margin.m1 == 2:
        doubled = 2 * cosines.square() - 1
        return torch.where(cosines > 0, doubled, -doubled - 2) - margin.m3
    assert margin.m1 == 1
    sine = (1 - cosines.square()).clamp_min(1e-14).sqrt()
    turned = cosines * math.cos(margin.m2) - sine * math.sin(margin.m2)
    past = cosines - margin.m2 * math.sin(margin.m2)
    return torch.where(cosines > math.cos(math.pi - margin.m2), turned, past) - margin.m3


def margin_by_arccos(cosines, margin: Margin):
    """cos(m1 theta + m2) - m3 through an arccos, continued past pi as documented."""
    theta = cosines.clamp(-1 + 1e-14, 1 - 1e-14).arccos()
    phi = margin.m1 * theta + margin.m2
    if margin.m1 == 1:
        past = cosines - margin.m2 * math.sin(margin.m2)
        values = torch.where(phi < math.pi, phi.cos(), past)
    else:
        turns = (phi.detach() / math.pi).floor()
        values = (1 - 2 * turns.remainder(2)) * phi.cos() - 2 * turns
    return values - margin.m3


def dense_loss(
    loss,
    embeddings,
    weight,
    bias,
    labels,
    margin: Margin,
    scale,
    taking_part=None,
    with_margin=margin_by_arccos,
):
    """Mean cross-entropy of the valid samples, over all classes or those ``taking_part``."""
    if loss is Loss.softmax:
        logits = functional.linear(embeddings, weight, bias)
    else:
        cosines = functional.normalize(embeddings) @ functional.normalize(weight).T
        target = functional.one_hot(labels.clamp_min(0), len(weight)).bool()
        turned = with_margin(cosines, margin)
        if margin.gradient.value == "ste":
            turned = _Value.apply(cosines, turned.detach())
        logits = scale * torch.where(target, turned, cosines)
    if taking_part is not None:
        logits = logits.masked_fill(~taking_part, -torch.inf)
    valid = labels >= 0
    if not valid.any():
        return embeddings.sum() * 0
    return functional.cross_entropy(logits[valid], labels[valid])


def torch_optimizer(config, weight, bias=None):
    """The optimizer of torch's that ours must equal; biases do not decay."""
    groups = [{"params": [weight], "weight_decay": config.weight_decay}]
    if bias is not None:
        groups.append({"params": [bias], "weight_decay": 0.0})
    if config.name is Optimizer.adamw:
        return torch.optim.AdamW(groups, lr=1.0, betas=(config.momentum, 0.999))
    return torch.optim.SGD(groups, lr=1.0, momentum=config.momentum)
