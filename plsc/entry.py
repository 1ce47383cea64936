"""Entry: the five lines to train, with the names of PLSC's Python interface.

::

    from plsc import Entry

    ins = Entry()
    ins.set_dataset_dir("./train_data")
    ins.set_class_num(85742)
    ins.train()

The same stages run as in the pipeline, in one process, or on every rank under torchrun. This is the
only file that knows the seed's words.
"""

import copy
import datetime as dt
import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from plsc import doorway
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.onnx_model import OnnxModel
from plsc.conf import compose
from plsc.conf.schema import PipelineConfig
from plsc.errors import ConfigError
from plsc.models import register
from plsc.train.process_group import joined

__all__ = ["Entry"]

log = logging.getLogger(__name__)

_LOSSES = {
    "dist_arcface": ("arcface", "sharded"),
    "dist_softmax": ("softmax", "sharded"),
    "arcface": ("arcface", "replicated"),
    "softmax": ("softmax", "replicated"),
}


class Entry:
    """Settings, and three verbs: ``train``, ``test``, ``convert_for_prediction``.

    Every setter checks nothing; ``train`` composes the configuration and names all that is wrong.
    """

    def __init__(self) -> None:
        self._settings: dict[str, object] = {"store_uri": "./output"}
        self._train_batch_size = 128
        self._run_id: str | None = None

    # --- settings -----------------------------------------------------------------------------

    def set_class_num(self, num: int) -> None:
        """Set the number of classes, C; labels are 0..C-1."""
        self._settings["preprocess.num_classes"] = num

    def set_dataset_dir(self, path: str) -> None:
        """Set the folder with ``label.txt`` and ``images/`` (or ``file_list.txt``)."""
        self._settings["data_uri"] = str(Path(path).resolve()) if "://" not in path else path

    def set_model_save_dir(self, path: str) -> None:
        """Set the folder (or ``s3://`` uri) where data sets, checkpoints and graphs go."""
        self._settings["store_uri"] = str(Path(path).resolve()) if "://" not in path else path

    def set_train_batch_size(self, size: int) -> None:
        """Set the samples of one step *on each rank*."""
        self._train_batch_size = size

    def set_test_batch_size(self, size: int) -> None:
        """Set the images embedded at once in verification."""
        self._settings["evaluate.batch_size"] = size

    def set_train_epochs(self, num: int) -> None:
        """Set the passes over the data set."""
        self._settings["train.epochs"] = num

    def set_train_steps(self, num: int) -> None:
        """Set the step to stop after, whatever the epochs say."""
        self._settings["train.max_steps"] = num

    def set_warmup_epochs(self, num: float) -> None:
        """Set the epochs in which the learning rate rises."""
        self._settings["train.schedule.warmup_epochs"] = num

    def set_step_boundaries(self, boundaries: Sequence[int]) -> None:
        """Set the steps at which the learning rate falls."""
        self._settings["train.schedule.boundaries"] = list(boundaries)

    def set_lr_decay_factor(self, factor: float) -> None:
        """Set what the learning rate is multiplied with at each boundary."""
        self._settings["train.schedule.factor"] = factor

    def set_emb_size(self, size: int) -> None:
        """Set the dimensions of the embedding, D."""
        self._settings["model.embedding_size"] = size

    def set_image_shape(self, shape: Sequence[int]) -> None:
        """Set the shape of every image, [3, size, size].

        Raises:
            ConfigError: If it is not three channels of a square.
        """
        if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
            raise ConfigError(f"image shape: expected [3, size, size], found {list(shape)}")
        self._settings["image_size"] = shape[1]

    def set_loss_type(self, loss_type: str) -> None:
        """Set the loss: ``dist_arcface``, ``dist_softmax``, ``arcface`` or ``softmax``.

        ``dist_`` cuts the classes over the ranks; without it every rank holds all of them, which
        only few classes are worth. The result is the same.

        Raises:
            ConfigError: If it is none of these.
        """
        if loss_type not in _LOSSES:
            raise ConfigError(
                f"loss type: expected one of {', '.join(_LOSSES)}, found {loss_type!r}"
            )
        loss, distribution = _LOSSES[loss_type]
        self._settings["train.head.loss"] = loss
        self._settings["train.head.distribution"] = distribution

    def set_sample_ratio(self, ratio: float) -> None:
        """Set the fraction of the classes that take part in a step, above 0 up to 1."""
        self._settings["train.head.sample_rate"] = ratio

    def set_mixed_precision(  # noqa: PLR0917  the seed's signature
        self,
        use_fp16: bool,  # noqa: FBT001
        init_loss_scaling: float = 1.0,
        incr_every_n_steps: int = 2000,
        decr_every_n_nan_or_inf: int = 2,
        incr_ratio: float = 2.0,
        decr_ratio: float = 0.5,
        use_dynamic_loss_scaling: bool = True,  # noqa: FBT001, FBT002
        amp_lists: None = None,
    ) -> None:
        """Set whether the backbone computes in fp16 (else fp32), and how the loss is scaled then.

        Args:
            use_fp16: fp16 with loss scaling, or fp32.
            init_loss_scaling: First factor on the loss, at least 1.
            incr_every_n_steps: Finite steps in a row after which it grows.
            decr_every_n_nan_or_inf: Non-finite steps in a row after which it shrinks.
            incr_ratio: What it grows by, above 1.
            decr_ratio: What it shrinks by, below 1.
            use_dynamic_loss_scaling: Whether it grows and shrinks at all.
            amp_lists: None.

        Raises:
            ConfigError: If ``amp_lists`` is given: they name operators of PaddlePaddle.
        """
        if amp_lists is not None:
            raise ConfigError(
                "amp_lists: expected None: such lists name operators of PaddlePaddle, and here"
                " torch.autocast knows which operators bear fp16; leave the argument out"
            )
        self._settings |= {
            "train.precision": "fp16" if use_fp16 else "fp32",
            "train.loss_scale.init": init_loss_scaling,
            "train.loss_scale.is_dynamic": use_dynamic_loss_scaling,
            "train.loss_scale.growth_interval": incr_every_n_steps,
            "train.loss_scale.growth_factor": incr_ratio,
            "train.loss_scale.backoff_interval": decr_every_n_nan_or_inf,
            "train.loss_scale.backoff_factor": decr_ratio,
        }

    def set_val_targets(self, targets: str | Sequence[str]) -> None:
        """Set the benchmarks: names of ``<name>.bin`` in the data set's folder."""
        names = [targets] if isinstance(targets, str) else list(targets)
        self._settings["evaluate.benchmarks"] = names
        self._settings["train.verify_benchmarks"] = names

    def set_with_test(self, with_test: bool) -> None:  # noqa: FBT001  the seed's signature
        """Set whether to verify after every epoch."""
        self._settings["train.verify_every_epochs"] = int(with_test)

    def set_log_period(self, num: int) -> None:
        """Set the steps between lines of progress."""
        self._settings["train.log_every_steps"] = num

    def set_model(self, model: nn.Module | str) -> None:
        """Set the backbone: a name of the registry, or a module of your own.

        A module maps float32 [B, 3, size, size] in [-1, 1] to [B, D]. Training starts from a copy
        of it. ``test`` and ``convert_for_prediction`` know it in this process only; a class named
        as ``package.module:Class`` is known everywhere.
        """
        if isinstance(model, str):
            self._settings["model.name"] = model
            return
        name = f"entry-{id(model)}"
        register(name)(lambda **_: copy.deepcopy(model))
        self._settings["model.name"] = name

    # --- verbs --------------------------------------------------------------------------------

    def train(self) -> Checkpoint:
        """Preprocess the data set if that was not done before, train, and return the checkpoint.

        Raises:
            PlscError: Whatever a stage raises; nothing half-written is left that looks finished.
        """
        from plsc.preprocess.stage import run as preprocess  # noqa: PLC0415
        from plsc.train.stage import run as train  # noqa: PLC0415

        with joined(threads=0) as ranks:
            self._run_id = ranks.gather_objects(_new_run_id())[0]
            config = self._config(ranks.world_size)
            _show_progress(is_first=ranks.is_first)
            if ranks.is_first:
                preprocess(config)
            ranks.wait()
            return train(config)

    def test(self) -> dict[str, float]:
        """Verify the trained model and return the accuracy (0..1) on each benchmark.

        Raises:
            ConfigError: If ``train`` did not run before.
            PlscError: Whatever the stage raises.
        """
        from plsc.evaluate.stage import run as evaluate  # noqa: PLC0415

        report = evaluate(self._config())
        return {result.name: result.accuracy for result in report.benchmarks}

    def convert_for_prediction(self) -> OnnxModel:
        """Export the trained model as an ONNX graph and return its index.

        Raises:
            ConfigError: If ``train`` did not run before.
            PlscError: Whatever the stage raises.
        """
        from plsc.export.stage import run as export  # noqa: PLC0415

        return export(self._config())

    def _config(self, world_size: int = 1) -> PipelineConfig:
        if self._run_id is None:
            raise ConfigError("nothing was trained yet: call train() first")
        settings = self._settings | {
            "run_id": self._run_id,
            "train.global_batch_size": self._train_batch_size * world_size,
            "train.ranks": world_size,
            "train.threads_per_rank": 0,
        }
        return compose("faces", *(_override(key, value) for key, value in settings.items()))


def _override(key: str, value: object) -> str:
    return doorway.assign(key, value) if isinstance(value, str) else f"{key}={value}"


def _new_run_id() -> str:
    return f"entry-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}"


def _show_progress(*, is_first: bool) -> None:
    """Show progress unless the program that uses us has set up logging itself."""
    if is_first and not logging.getLogger().handlers:
        doorway.configure_logging("plsc")
