"""Learning rate and margin as functions of the step: nothing to store, nothing to resume."""

import math
from dataclasses import dataclass

from plsc.conf.schema import Schedule, TrainConfig
from plsc.train.head import Margin

__all__ = ["RunPlan"]


@dataclass(frozen=True)
class RunPlan:
    """What follows from the configuration and the size of the data set."""

    config: TrainConfig
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        steps = self.config.epochs * self.steps_per_epoch
        return min(steps, self.config.max_steps) if self.config.max_steps else steps

    def lr(self, step: int) -> float:
        """Return the learning rate of ``step``, 0 <= step < total_steps."""
        peak = self.config.optimizer.lr
        if self.config.optimizer.lr_batch_size:
            peak *= self.config.global_batch_size / self.config.optimizer.lr_batch_size
        warmup_steps = round(self.config.schedule.warmup_epochs * self.steps_per_epoch)
        if step < warmup_steps:
            return peak * (step + 1) / warmup_steps
        return peak * self._decay(step, warmup_steps)

    def _decay(self, step: int, warmup_steps: int) -> float:
        schedule = self.config.schedule
        if schedule.name is Schedule.step:
            passed = sum(step >= boundary for boundary in schedule.boundaries)
            return schedule.factor**passed
        done = (step - warmup_steps) / max(1, self.total_steps - warmup_steps)
        if schedule.name is Schedule.poly:
            return float((1 - done) ** schedule.power)
        return 0.5 * (1 + math.cos(math.pi * done))

    def margin(self, step: int) -> Margin:
        """Return the margin of ``step``."""
        return Margin.of(self.config.head, self.margin_fraction(step))

    def margin_fraction(self, step: int) -> float:
        """Return how much of the margin holds: 0 to 1 in its warm-up, then 1."""
        warmup_steps = self.config.margin_warmup_epochs * self.steps_per_epoch
        return min(1.0, step / warmup_steps if warmup_steps else 1.0)
