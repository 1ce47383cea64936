"""The training loop: step, log, verify, checkpoint."""

import logging
import math
import time
from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from plsc.artifacts.checkpoint import Checkpoint
from plsc.conf.schema import PipelineConfig, Precision
from plsc.doorway import Stopwatch
from plsc.errors import TrainError
from plsc.progress import duration
from plsc.train.checkpointing import prune, save
from plsc.train.data import TrainingData, batches
from plsc.train.events import Events
from plsc.train.head import HeadOutput
from plsc.train.process_group import Ranks
from plsc.train.sampler import Sampler
from plsc.train.schedule import RunPlan
from plsc.train.state import TrainState
from plsc.train.verify import verify
from plsc.verification import Benchmark

__all__ = ["Loop"]

log = logging.getLogger(__name__)


class Loop:
    """Trains a state on a data set to the end of its plan."""

    def __init__(
        self,
        state: TrainState,
        data: TrainingData,
        benchmarks: list[Benchmark],
        config: PipelineConfig,
        ranks: Ranks,
    ) -> None:
        train = config.train
        self.sampler = Sampler(data.dataset.num_samples, train.global_batch_size, config.seed)
        self.plan = RunPlan(train, self.sampler.steps_per_epoch)
        self.state = state
        self.figures: dict[str, float] = {}
        self._data = data
        self._benchmarks = benchmarks
        self._config = config
        self._ranks = ranks
        self._model: nn.Module = state.backbone
        if ranks.world_size > 1:
            # Rank 0's batch-norm statistics are what a checkpoint holds: no need to share them.
            self._model = DistributedDataParallel(
                state.backbone, forward_sync_buffers=False, gradient_as_bucket_view=True
            )
        self._seconds_in_steps = 0.0
        self._samples = 0

    def run(
        self, watch: Stopwatch, events: Events, resumed: Checkpoint | None = None
    ) -> Checkpoint:
        """Train from the state's step to the last one and return the last checkpoint.

        Collective. ``resumed`` is the checkpoint that the state comes from; one of this run is not
        written a second time when no step is left.

        Raises:
            TrainError: If the loss is no longer finite; nothing is saved after that.
            StorageError: If a checkpoint cannot be written.
        """
        first, last = self.state.step, self.plan.total_steps
        self._model.train()
        checkpoint = resumed
        if resumed and resumed.provenance.run_id != self._config.run_id:
            checkpoint = None
        start = time.monotonic()
        feed = batches(self._data, self.sampler, self._config, range(first, last), self._ranks)
        for step, images_B3SS, labels_B in feed:
            output = self._step(step, images_B3SS, labels_B)
            self.state.step = step + 1
            self._samples += self._config.train.global_batch_size
            self._seconds_in_steps += time.monotonic() - start
            is_to_save = self._is_due(self._config.train.checkpoint_every_steps) or step + 1 == last
            if is_to_save or self._is_due(self._config.train.log_every_steps):
                self._report(output, events)
            self._verify_if_due(events)
            if is_to_save:
                checkpoint = self._save(watch, events)
            start = time.monotonic()
        if checkpoint is None:
            checkpoint = self._save(watch, events)
        return checkpoint

    def _step(self, step: int, images_B3SS: torch.Tensor, labels_B: torch.Tensor) -> HeadOutput:
        device = self._ranks.device
        place = step * self._ranks.world_size + self._ranks.rank
        torch.manual_seed(self._config.seed * 1_000_003 + place)  # dropout: nothing to store
        for group in self.state.optimizer.param_groups:
            group["lr"] = self.plan.lr(step)
        images_B3SS = images_B3SS.to(device, memory_format=torch.channels_last)
        with self._autocast():
            embeddings_BD = self._model(images_B3SS)
        output: HeadOutput = self.state.head(
            embeddings_BD.float(), labels_B.to(device), self.plan.margin(step)
        )
        self.state.optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        self.state.optimizer.step()
        return output

    def _autocast(self) -> AbstractContextManager[None]:
        is_bf16 = self._config.train.precision is Precision.bf16
        return torch.autocast(self._ranks.device.type, torch.bfloat16, enabled=is_bf16)

    def _is_due(self, every_steps: int) -> bool:
        return every_steps > 0 and self.state.step % every_steps == 0

    def _report(self, output: HeadOutput, events: Events) -> None:
        step, total = self.state.step, self.plan.total_steps
        loss, acc1 = output.loss.item(), output.correct_1.item()
        if not math.isfinite(loss):
            raise TrainError(
                f"the loss is {loss} after step {step}: expected a finite number; lower"
                " train.optimizer.lr or raise train.schedule.warmup_epochs, and resume"
            )
        rate = self._samples / self._seconds_in_steps
        left = (total - step) * self._config.train.global_batch_size / rate
        self.figures |= {"loss": loss, "acc1": acc1, "samples_per_s": rate}
        log.info(
            "step %d/%d  epoch %.1f/%d  loss %.3f  acc1 %.3f  lr %.1e  %.0f samples/s  %s left",
            step, total, step / self.plan.steps_per_epoch, self._config.train.epochs,
            loss, acc1, self.plan.lr(step - 1), rate, duration(left),
        )  # fmt: skip
        scalars = {
            "train/loss": loss,
            "train/acc1": acc1,
            "train/acc5": output.correct_5.item(),
            "train/lr": self.plan.lr(step - 1),
            "train/margin": self.plan.margin(step - 1),
            "train/samples_per_s": rate,
        }
        events.add(step, scalars)

    def _verify_if_due(self, events: Events) -> None:
        epochs = self._config.train.verify_every_epochs
        if not epochs or not self._is_due(epochs * self.plan.steps_per_epoch):
            return
        for benchmark in self._benchmarks:
            accuracy = verify(self.state, benchmark, self._config, self._ranks)
            self.figures[f"accuracy_{benchmark.name}"] = accuracy
            events.add(self.state.step, {f"verification/{benchmark.name}": accuracy})

    def _save(self, watch: Stopwatch, events: Events) -> Checkpoint:
        checkpoint = save(
            self.state,
            self._config,
            self._ranks,
            watch,
            epoch=self.state.step // self.plan.steps_per_epoch,
            dataset_uri=self._data.dataset.uri,
            figures=self.figures,
        )
        events.upload()
        if self._ranks.is_first:
            prune(self._config)
        log.info(
            "checkpoint of step %d: %s", checkpoint.step, checkpoint.backbone.uri.rpartition("/")[0]
        )
        return checkpoint
