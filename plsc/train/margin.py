"""Margins: what happens to the cosine between an embedding and the center of its own class.

``arcface``: Deng et al., "ArcFace" (arXiv 1801.07698), cos(theta + m); ``cosface``: Wang et al.,
"CosFace" (arXiv 1801.09414), cos(theta) - m. The gradient is the exact one (InsightFace's code
treats d cos(theta + m) / d cos(theta) as 1 instead).
"""

import math

import torch

from plsc.conf.schema import Loss

__all__ = ["apply_margin"]

_MIN_SIN_SQUARED = 1e-7


def apply_margin(loss: Loss, target_cosines: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the target cosines with the margin of ``loss`` applied, differentiably.

    ArcFace uses the identity cos(theta + m) = t cos m - sqrt(1 - t^2) sin m, without an arccos
    (which loses all digits at |t| = 1). Past theta + m = pi, where the cosine would rise again,
    it goes on as t - m sin m, which keeps it monotone.

    Args:
        loss: Whose margin; ``softmax`` has none.
        target_cosines: float [n], cosines t in [-1, 1].
        margin: Radians for ArcFace, a cosine for CosFace; >= 0.

    Returns:
        float [n].
    """
    if loss is Loss.cosface:
        return target_cosines - margin
    if loss is Loss.arcface:
        sines = (1 - target_cosines.square()).clamp_min(_MIN_SIN_SQUARED).sqrt()
        turned = target_cosines * math.cos(margin) - sines * math.sin(margin)
        past_pi = target_cosines - margin * math.sin(margin)
        return torch.where(target_cosines > math.cos(math.pi - margin), turned, past_pi)
    return target_cosines
