"""What the types of the schema cannot say: ranges, and settings that must go together."""

import math
import re

from plsc.conf.schema import PipelineConfig
from plsc.errors import ConfigError

__all__ = ["check"]


def check(config: PipelineConfig) -> None:
    """Check every setting and name all that are wrong at once.

    Raises:
        ConfigError: One line per wrong setting: the key, what was expected, what was found.
    """
    problems = [
        *_names(config),
        *_positive(config),
        *_fractions(config),
        *_training(config),
        *_verification(config),
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _names(config: PipelineConfig) -> list[str]:
    found = {"run_id": config.run_id, "deploy.model_name": config.deploy.model_name}
    return [
        f"{key} must be letters, digits, '-' and '_' (at most 100), not {value!r}"
        for key, value in found.items()
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", value)
    ]


def _positive(config: PipelineConfig) -> list[str]:
    found = {
        "image_size": config.image_size,
        "model.embedding_size": config.model.embedding_size,
        "preprocess.samples_per_shard": config.preprocess.samples_per_shard,
        "train.ranks": config.train.ranks,
        "train.epochs": config.train.epochs,
        "train.global_batch_size": config.train.global_batch_size,
        "train.keep_checkpoints": config.train.keep_checkpoints,
        "train.log_every_steps": config.train.log_every_steps,
        "train.head.scale": config.train.head.scale,
        "train.optimizer.lr": config.train.optimizer.lr,
        "evaluate.batch_size": config.evaluate.batch_size,
        "evaluate.folds": config.evaluate.folds,
        "export.parity_images": config.export.parity_images,
        "deploy.timeout_s": config.deploy.timeout_s,
        "deploy.keep_versions": config.deploy.keep_versions,
    }
    return [
        f"{key} must be greater than 0, not {value}"
        for key, value in found.items()
        if not value > 0
    ]


def _fractions(config: PipelineConfig) -> list[str]:
    found = {
        "preprocess.max_bad_fraction": config.preprocess.max_bad_fraction,
        "model.dropout": config.model.dropout,
        "train.optimizer.momentum": config.train.optimizer.momentum,
    }
    found |= {
        f"evaluate.far_targets[{n}]": far for n, far in enumerate(config.evaluate.far_targets)
    }
    return [
        f"{key} must lie in 0..1, not {value}"
        for key, value in found.items()
        if not 0 <= value <= 1
    ]


def _training(config: PipelineConfig) -> list[str]:
    train = config.train
    if train.ranks > 0 and train.global_batch_size % train.ranks:
        return [
            f"train.global_batch_size={train.global_batch_size} cannot be dealt evenly over"
            f" train.ranks={train.ranks}: make it a multiple"
        ]
    return []


def _verification(config: PipelineConfig) -> list[str]:
    known = config.evaluate.benchmarks
    problems = [
        f"evaluate.thresholds.{name} belongs to no benchmark: evaluate.benchmarks holds"
        f" {', '.join(known) or 'none'}"
        for name in config.evaluate.thresholds
        if name not in known
    ]
    if config.train.verify_every_epochs:
        problems += [
            f"train.verify_benchmarks names {name!r}, which evaluate.benchmarks does not hold"
            for name in config.train.verify_benchmarks
            if name not in known
        ]
    problems += [
        f"evaluate.thresholds.{name} must be a finite number, not {threshold}"
        for name, threshold in config.evaluate.thresholds.items()
        if not math.isfinite(threshold)
    ]
    if config.evaluate.folds < 2:
        problems.append(f"evaluate.folds must be at least 2, not {config.evaluate.folds}")
    return problems
