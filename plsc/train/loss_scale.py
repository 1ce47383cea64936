"""Loss scale: the factor on the loss that keeps fp16 gradients from vanishing or overflowing.

The gradients of a loss multiplied by S are S times as large; they are divided by S before weights
follow them (Micikevicius et al., "Mixed precision training", 2018). A step whose gradients are not
all finite changes no weight, and is told here.
"""

import torch

from plsc.conf.schema import LossScaleConfig
from plsc.errors import TrainError

__all__ = ["HOPELESS_STEPS", "LossScale"]

HOPELESS_STEPS = 20
"""Non-finite steps in a row, with a factor that cannot shrink, after which training stops.

Such a step leaves the weights as they are, so only its batch and the next one's differ: a few bad
images explain one such step, nothing that a smaller factor could mend explains this many.
"""

_SMALLEST = 1.0
_LARGEST = torch.finfo(torch.float32).max


class LossScale:
    """A factor that grows while gradients are finite and shrinks when they are not.

    The rules are those of PaddlePaddle's ``update_loss_scaling``: it grows after
    ``growth_interval`` finite steps in a row and shrinks after ``backoff_interval`` non-finite ones
    in a row; either kind of step ends the other's row, and a change begins a new one. It never
    falls below 1, and where growing would exceed the largest float32 it stays. If it is not
    dynamic it is constant.

    Ours alone: a factor that cannot shrink any more (it is 1, or constant) while steps stay
    non-finite ends training, where it would otherwise stand still for days.
    """

    def __init__(self, config: LossScaleConfig) -> None:
        self.value = config.init
        self._config = config
        self._finite_steps = 0
        self._non_finite_steps = 0
        self._hopeless_steps = 0

    def update(self, is_finite: bool) -> None:  # noqa: FBT001  the one thing it is told
        """Take in whether all gradients of a step, on all ranks, were finite.

        Raises:
            TrainError: After ``HOPELESS_STEPS`` non-finite steps in a row whose factor could not
                have been smaller.
        """
        if is_finite:
            self._finite_steps += 1
            self._non_finite_steps = self._hopeless_steps = 0
        else:
            self._finite_steps = 0
            self._non_finite_steps += 1
            self._count_hopeless()
        if not self._config.is_dynamic:
            return
        if self._finite_steps >= self._config.growth_interval:
            self._grow()
        if self._non_finite_steps >= self._config.backoff_interval:
            self._shrink()

    def state(self) -> dict[str, float]:
        """Return what a checkpoint must hold."""
        return {
            "value": self.value,
            "finite_steps": self._finite_steps,
            "non_finite_steps": self._non_finite_steps,
            "hopeless_steps": self._hopeless_steps,
        }

    def load(self, state: dict[str, float]) -> None:
        """Go on from what ``state`` returned; a constant factor stays the configured one."""
        if self._config.is_dynamic:
            self.value = float(state["value"])
        self._finite_steps = int(state["finite_steps"])
        self._non_finite_steps = int(state["non_finite_steps"])
        self._hopeless_steps = int(state["hopeless_steps"])

    def _grow(self) -> None:
        grown = self.value * self._config.growth_factor
        if grown <= _LARGEST:
            self.value = grown
        self._finite_steps = 0

    def _shrink(self) -> None:
        self.value = max(_SMALLEST, self.value * self._config.backoff_factor)
        self._non_finite_steps = 0

    def _count_hopeless(self) -> None:
        if self._config.is_dynamic and self.value > _SMALLEST:
            return
        self._hopeless_steps += 1
        if self._hopeless_steps < HOPELESS_STEPS:
            return
        why = "smallest" if self._config.is_dynamic else "train.loss_scale.is_dynamic=false"
        raise TrainError(
            f"{HOPELESS_STEPS} steps in a row gave gradients that are not finite, with a loss scale"
            f" of {self.value:g} ({why}) that cannot shrink: no weight was changed in them. Train"
            " with train.precision=bf16, or lower train.optimizer.lr and resume from an earlier"
            " checkpoint"
        )
