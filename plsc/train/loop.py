"""The training loop: step, log, verify, checkpoint."""

import logging
import math
import time
from contextlib import closing

import torch

from plsc.artifacts.checkpoint import Checkpoint
from plsc.conf.schema import PipelineConfig
from plsc.errors import TrainError
from plsc.progress import duration
from plsc.train.checkpoints import Checkpointer
from plsc.train.events import Events
from plsc.train.feed import feed
from plsc.train.head import HeadOutput
from plsc.train.loader import Loader
from plsc.train.process_group import Ranks
from plsc.train.schedule import RunPlan
from plsc.train.state import TrainState
from plsc.train.stepper import Stepper
from plsc.train.stopping import Stopping
from plsc.train.verify import verify
from plsc.verification import Benchmark

__all__ = ["Loop"]

log = logging.getLogger(__name__)


class Loop:
    """Trains a state on a data set to the end of its plan."""

    def __init__(
        self,
        state: TrainState,
        loader: Loader,
        benchmarks: list[Benchmark],
        config: PipelineConfig,
        ranks: Ranks,
    ) -> None:
        self.plan = RunPlan(config.train, loader.sampler.steps_per_epoch)
        self.state = state
        self.figures: dict[str, float] = {}
        self._loader = loader
        self._benchmarks = benchmarks
        self._config = config
        self._ranks = ranks
        self._stepper = Stepper(state, self.plan, config, ranks)
        self._seconds_in_steps = 0.0
        self._samples = 0
        self._num_replaced = 0
        self._replaced_before = 0.0

    def run(
        self,
        checkpointer: Checkpointer,
        events: Events,
        resumed: Checkpoint | None,
        stopping: Stopping,
    ) -> None:
        """Train from the state's step to the last one, handing checkpoints to ``checkpointer``.

        Collective. ``resumed`` is the checkpoint that the state comes from; one of this run is not
        written a second time when no step is left. When the ranks agree to stop, the step that
        begins then is the last one; time is short then, so it is not verified, even at the end of
        an epoch, and the run that goes on from there lacks that figure.

        Raises:
            TrainError: If a value is no longer finite; nothing is saved after that.
            StorageError: If a checkpoint cannot be written.
        """
        first, last = self.state.step, self.plan.total_steps
        self.state.backbone.train()
        self._replaced_before = self.figures.setdefault("replaced_images", 0.0)
        start = time.monotonic()
        with closing(feed(self._loader, range(first, last), self._ranks.device)) as batches:
            for step, images_BSS3, labels_B, num_replaced in batches:
                self.state.step = step + 1
                self._num_replaced += num_replaced
                self.figures.pop("accuracy", None)  # that of this very step, if it is verified
                is_stopping = step + 1 < last and stopping.is_agreed()
                is_last = step + 1 == last or is_stopping
                is_to_save = is_last or self._is_due(self._config.train.checkpoint_every_steps)
                is_to_report = is_to_save or self._is_due(self._config.train.log_every_steps)
                is_to_report |= self._is_to_verify()
                output = self._stepper.take(step, images_BSS3, labels_B, count_correct=is_to_report)
                self._samples += self._config.train.global_batch_size
                self._seconds_in_steps += time.monotonic() - start
                if is_to_report:
                    self._report(output, events)
                is_best = not is_stopping and self._is_to_verify() and self._verify(events)
                if is_to_save or is_best:
                    self._save(checkpointer, events)
                if is_last:
                    break
                start = time.monotonic()
        if first >= last and not (resumed and resumed.provenance.run_id == self._config.run_id):
            self._save(checkpointer, events)

    def _is_due(self, every_steps: int) -> bool:
        return every_steps > 0 and self.state.step % every_steps == 0

    def _report(self, output: HeadOutput, events: Events) -> None:
        step, total = self.state.step, self.plan.total_steps
        assert output.correct_1 is not None
        assert output.correct_5 is not None
        loss, acc1 = output.loss.item(), output.correct_1.item()
        if not math.isfinite(loss):
            raise TrainError(
                f"the loss is {loss} after step {step}: expected a finite number; lower"
                " train.optimizer.lr or raise train.schedule.warmup_epochs, and resume"
            )
        rate = self._samples / self._seconds_in_steps
        left = (total - step) * self._config.train.global_batch_size / rate
        self.figures |= {"loss": loss, "acc1": acc1, "samples_per_s": rate}
        self._report_replaced()
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
            "train/margin_fraction": self.plan.margin_fraction(step - 1),
            "train/samples_per_s": rate,
            "train/replaced_images": self.figures["replaced_images"],
            "train/shard_wait_s": self._loader.waited_s,
        }
        events.add(step, scalars)

    def _report_replaced(self) -> None:
        """Count the damaged images that all ranks met, over the whole run. Collective."""
        met = torch.tensor(self._num_replaced, device=self._ranks.device)
        total = self._replaced_before + self._ranks.gather(met).sum().item()
        if total > self.figures["replaced_images"]:
            log.warning("%d images could not be used so far; others stood in for them", total)
        self.figures["replaced_images"] = total

    def _is_to_verify(self) -> bool:
        return self._is_due(self._config.train.verify_every_epochs * self.plan.steps_per_epoch)

    def _verify(self, events: Events) -> bool:
        """Measure the backbone, and return whether its checkpoint is to be kept as the best."""
        accuracies = []
        for benchmark in self._benchmarks:
            accuracies.append(verify(self.state, benchmark, self._config, self._ranks))
            self.figures[f"accuracy_{benchmark.name}"] = accuracies[-1]
            events.add(self.state.step, {f"verification/{benchmark.name}": accuracies[-1]})
        if not accuracies:
            return False
        accuracy = sum(accuracies) / len(accuracies)
        best = self.figures.get("best_accuracy", -math.inf)
        self.figures |= {"accuracy": accuracy, "best_accuracy": max(accuracy, best)}
        return accuracy > best and self._config.train.keep_best

    def _save(self, checkpointer: Checkpointer, events: Events) -> None:
        checkpointer.save(
            self.state,
            epoch=self.state.step // self.plan.steps_per_epoch,
            dataset_uri=self._loader.dataset.uri,
            figures=self.figures,
        )
        events.upload()
