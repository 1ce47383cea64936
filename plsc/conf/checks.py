"""What the types of the schema cannot say: ranges, and settings that must go together."""

import math
import re

from plsc.conf.pods import pods_problems
from plsc.conf.schema import (
    Distribution,
    HeadConfig,
    HeadUpdate,
    Loss,
    PipelineConfig,
    Precision,
    StateDtype,
)
from plsc.errors import ConfigError

__all__ = ["check", "update_problems"]


def check(config: PipelineConfig) -> None:
    """Check every setting and name all that are wrong at once.

    Raises:
        ConfigError: One line per wrong setting: the key, what was expected, what was found.
    """
    problems = [
        *_names(config),
        *_positive(config),
        *_not_negative(config),
        *_fractions(config),
        *_training(config),
        *_pods(config),
        *_head(config),
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
        "preprocess.memory_mib": config.preprocess.memory_mib,
        "train.ranks": config.train.ranks,
        "train.epochs": config.train.epochs,
        "train.global_batch_size": config.train.global_batch_size,
        "train.keep_checkpoints": config.train.keep_checkpoints,
        "train.log_every_steps": config.train.log_every_steps,
        "train.micro_batches": config.train.micro_batches,
        "train.loader.window_shards": config.train.loader.window_shards,
        "train.augment.crop": config.train.augment.crop,
        "train.augment.blur_radius": config.train.augment.blur_radius,
        "train.head.scale": config.train.head.scale,
        "train.head.chunk_size": config.train.head.chunk_size,
        "train.loss_scale.init": config.train.loss_scale.init,
        "train.loss_scale.growth_interval": config.train.loss_scale.growth_interval,
        "train.loss_scale.backoff_interval": config.train.loss_scale.backoff_interval,
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


def _not_negative(config: PipelineConfig) -> list[str]:
    found = {
        "preprocess.num_classes": config.preprocess.num_classes,
        "preprocess.workers": config.preprocess.workers,
        "preprocess.min_images_per_class": config.preprocess.min_images_per_class,
        "train.clip_norm": config.train.clip_norm,
        "train.head.logits_cache_mib": config.train.head.logits_cache_mib,
        "train.resume_step": config.train.resume_step,
    }
    return [
        f"{key} must not be negative, is {value}" for key, value in found.items() if not value >= 0
    ]


def _fractions(config: PipelineConfig) -> list[str]:
    found = {
        "preprocess.max_bad_fraction": config.preprocess.max_bad_fraction,
        "model.dropout": config.model.dropout,
        "train.optimizer.momentum": config.train.optimizer.momentum,
        "train.augment.crop": config.train.augment.crop,
        "train.augment.color": config.train.augment.color,
        "train.augment.blur": config.train.augment.blur,
        "train.augment.grey": config.train.augment.grey,
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
    problems = []
    if train.global_batch_size < train.ranks * train.micro_batches:
        problems.append(
            f"train.global_batch_size={train.global_batch_size} gives no sample to some of the"
            f" {train.ranks} ranks' {train.micro_batches} micro-batches: raise it"
        )
    scale = train.loss_scale
    if scale.init < 1 or scale.growth_factor <= 1 or not 0 < scale.backoff_factor < 1:
        problems.append(
            "train.loss_scale must have init >= 1, growth_factor > 1 and 0 < backoff_factor < 1,"
            f" not {scale.init}, {scale.growth_factor} and {scale.backoff_factor}"
        )
    for key, value in {
        "train.clip_norm": train.clip_norm,
        "train.head.logits_cache_mib": train.head.logits_cache_mib,
        "train.loader.workers": train.loader.workers,
        "train.loader.cache_gib": train.loader.cache_gib,
    }.items():
        if not value >= 0:
            problems.append(f"{key} must not be negative, is {value}")
    if not 0 <= train.augment.shift < config.image_size:
        problems.append(
            f"train.augment.shift must lie in 0..{config.image_size - 1}, less than an image, not"
            f" {train.augment.shift}"
        )
    if train.resume_step < 0:
        problems.append(f"train.resume_step must not be negative, is {train.resume_step}")
    if train.finetune_head and not train.finetune_from:
        problems.append("train.finetune_head=true needs train.finetune_from, an index's uri")
    return problems


def _pods(config: PipelineConfig) -> list[str]:
    train = config.train
    problems = [
        problem
        for stage, pods in {
            "preprocess": config.preprocess.pods,
            "train": train.pods,
            "evaluate": config.evaluate.pods,
        }.items()
        for problem in pods_problems(f"{stage}.pods", pods)
    ]
    if train.pods.count < 1 or train.ranks % train.pods.count:
        problems.append(
            f"train.pods.count={train.pods.count} must be at least 1 and divide train.ranks="
            f"{train.ranks}: every pod runs as many ranks"
        )
    if train.lease_s < 30:
        problems.append(f"train.lease_s must be at least 30, not {train.lease_s}")
    return problems


def _head(config: PipelineConfig) -> list[str]:
    train, head = config.train, config.train.head
    m1, m2, m3 = head.margins if len(head.margins) == 3 else (0.0, 0.0, 0.0)
    needs_all = {
        "train.micro_batches": train.micro_batches > 1,
        "train.clip_norm": bool(train.clip_norm),
        "train.precision=fp16": train.precision is Precision.fp16,
    }
    rules = {
        "train.head.margins must be three numbers, m1 >= 1, 0 <= m2 < pi and m3 >= 0": (
            m1 >= 1 and 0 <= m2 < math.pi and m3 >= 0
        ),
        f"train.head.margin must be at least 1 for sphereface, not {head.margin}": (
            head.loss is not Loss.sphereface or head.margin >= 1
        ),
        f"train.head.margin must lie in 0..pi (excluded) for arcface, not {head.margin}": (
            head.loss is not Loss.arcface or 0 <= head.margin < math.pi
        ),
        f"train.head.sample_rate must lie in 0 (excluded)..1, not {head.sample_rate}": (
            0 < head.sample_rate <= 1
        ),
        "train.head.precision must be fp32 or bf16 (fp16 is for the backbone)": (
            head.precision is not Precision.fp16
        ),
        "train.head.weight_dtype must be fp32 or bf16": head.weight_dtype is not StateDtype.int8,
        "train.head.update=fused cannot be had together with"
        f" {' and '.join(name for name, is_set in needs_all.items() if is_set)}: use deferred": (
            head.update is not HeadUpdate.fused or not any(needs_all.values())
        ),
    }
    return [problem for problem, holds in rules.items() if not holds] + update_problems(head)


def update_problems(head: HeadConfig) -> list[str]:
    """Return why ``head.update`` cannot be had with the head's other settings.

    Gradients would get lost, or copies of a replicated head would drift apart.
    """
    is_replicated = head.distribution is Distribution.replicated
    problems = []
    if is_replicated and head.update not in {HeadUpdate.plain, HeadUpdate.auto}:
        problems.append(
            "train.head.distribution=replicated needs train.head.update=plain (or auto): expected"
            f" plain, found {head.update.value}"
        )
    formats = {head.weight_dtype, head.momentum_dtype}
    is_plain = is_replicated or head.update is HeadUpdate.plain
    if is_plain and (head.sample_rate < 1 or formats != {StateDtype.fp32}):
        problems.append(
            "train.head.update=plain (and a replicated head) needs train.head.sample_rate=1 and"
            f" fp32 weight_dtype and momentum_dtype, found {head.sample_rate},"
            f" {head.weight_dtype.value} and {head.momentum_dtype.value}"
        )
    return problems


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
