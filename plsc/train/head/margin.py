"""Margins: what happens to the cosine between an embedding and the center of its own class.

All are cos(m1 theta + m2) - m3, the "combined margin" of ArcFace (Deng et al., arXiv 1801.07698):
SphereFace (Liu et al., arXiv 1704.08063) is m1, ArcFace m2, CosFace (Wang et al., arXiv 1801.09414)
m3. Only the targets of a batch have a margin, [G] numbers, so they are computed in float64.
"""

import math
from dataclasses import dataclass

import torch

from plsc.conf.schema import GradientMode, HeadConfig, Loss

__all__ = ["Margin"]

_MIN_SIN_SQUARED = {torch.float32: 1e-7, torch.float64: 1e-14}


@dataclass(frozen=True)
class Margin:
    """cos(m1 theta + m2) - m3 of a cosine t = cos(theta), and its derivative by t."""

    m1: float = 1.0
    """Factor on the angle, >= 1."""
    m2: float = 0.0
    """Added to the angle, radians, 0 <= m2 < pi."""
    m3: float = 0.0
    """Subtracted from the cosine, >= 0."""
    gradient: GradientMode = GradientMode.exact
    """``exact``: the true derivative; ``ste``: 1, as InsightFace's code computes."""

    @classmethod
    def of(cls, config: HeadConfig, warmed_up: float = 1.0) -> "Margin":
        """Return the margin that ``config`` asks for.

        Args:
            config: ``loss``, ``margin`` and ``margins`` count.
            warmed_up: Fraction 0..1 of the margin; 0 is none.
        """
        m1, m2, m3 = {
            Loss.arcface: (1.0, config.margin, 0.0),
            Loss.cosface: (1.0, 0.0, config.margin),
            Loss.sphereface: (config.margin, 0.0, 0.0),
            Loss.combined: tuple(config.margins),
        }.get(config.loss, (1.0, 0.0, 0.0))
        return cls(1.0 + (m1 - 1.0) * warmed_up, m2 * warmed_up, m3 * warmed_up, config.gradient)

    def apply(self, cosines: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the cosines with the margin, and the derivative to pass back.

        Both fall monotonically with the angle, also where m1 theta + m2 passes pi: with m1 = 1 the
        value goes on there as t - m2 sin(m2), as ArcFace's authors do; else as
        (-1)^k cos(phi) - 2k, k = floor(phi / pi), SphereFace's psi.

        At t = 1 and -1 an added angle makes a cone: its slope by t is infinite there and belongs to
        no direction. Closer than rounding can tell, only the regular part of the slope counts.

        Args:
            cosines: float32 or float64 [n]; rounding may have put them outside [-1, 1].

        Returns:
            Two tensors like ``cosines``.
        """
        t = cosines.double().clamp(-1, 1)
        sine_squared, smallest = 1 - t.square(), _MIN_SIN_SQUARED[cosines.dtype]
        is_cone = sine_squared < smallest
        turn = self._turned if self.m1 == 1 else self._multiplied
        values, slopes = turn(t, sine_squared.clamp_min(smallest).sqrt(), is_cone)
        if self.gradient is GradientMode.ste:
            slopes = torch.ones_like(slopes)
        return (values - self.m3).to(cosines.dtype), slopes.to(cosines.dtype)

    def _turned(
        self, t: torch.Tensor, sine: torch.Tensor, is_cone: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """cos(theta + m2) = t cos(m2) - sin(theta) sin(m2): no arccos, which is ill-conditioned."""
        cos_m, sin_m = math.cos(self.m2), math.sin(self.m2)
        is_below_pi = t > math.cos(math.pi - self.m2)
        values = torch.where(is_below_pi, t * cos_m - sine * sin_m, t - self.m2 * sin_m)
        slopes = torch.where(is_cone, cos_m, cos_m + sin_m * t / sine)
        return values, torch.where(is_below_pi, slopes, 1.0)

    def _multiplied(
        self, t: torch.Tensor, sine: torch.Tensor, is_cone: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        phi = self.m1 * torch.atan2(sine, t) + self.m2
        turns = (phi / math.pi).floor()
        sign = 1 - 2 * turns.remainder(2)
        regular = (sign * self.m1 * phi.cos() * t).clamp_min(0)
        slopes = self.m1 * torch.where(is_cone, regular, sign * phi.sin() / sine)
        return sign * phi.cos() - 2 * turns, slopes
