"""Train as a step of the pipeline: start the ranks, wait for them, hand the checkpoint on."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import plsc.errors
from plsc import doorway, storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.shards import ShardSet
from plsc.conf.schema import PipelineConfig
from plsc.errors import PlscError, StorageError, TrainError
from plsc.train.backends import Backend, RankKilledError, chosen

__all__ = ["run_step"]


def run_step(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    *,
    resume_run: str,
    dataset_path: str,
    model_path: str,
    metadata: dict[str, Any],
    metrics: dict[str, Any],
    task: Mapping[str, Any] | None = None,
) -> None:
    """Train on the data set whose index lies at ``dataset_path``.

    Args:
        experiment: The pipeline's parameter of that name; so ``overrides`` and ``data_uri``.
        overrides: Hydra overrides in one line.
        data_uri: Folder of the input; empty: the experiment's own.
        run_id: The pipeline run.
        resume_run: Run whose newest checkpoint to go on from; empty: this run's own.
        dataset_path: Index of the data set.
        model_path: Where to write the checkpoint's index.
        metadata: Filled with what the model is.
        metrics: Filled with the last figures of training.
        task: What the pipeline's task asks of a node, for the pods of a PyTorchJob: the fields of
            kfp's TaskConfig.

    Raises:
        PlscError: Whatever ended the ranks.
    """
    inputs = {"train.dataset_uri": ShardSet.read(dataset_path).uri}
    inputs |= {"train.resume_run": resume_run} if resume_run else {}
    with doorway.step(
        "train",
        experiment=experiment,
        overrides=overrides,
        data_uri=data_uri,
        run_id=run_id,
        inputs=inputs,
    ) as config:
        given = doorway.step_overrides(
            overrides=overrides, data_uri=data_uri, run_id=run_id, inputs=inputs
        )
        _train(chosen(config, task), config, [f"experiment={experiment}", *given])
        checkpoint = Checkpoint.read(doorway.index_uri(config, "train"))
        checkpoint.write(model_path)
        metadata.update(
            run_id=config.run_id,
            step=checkpoint.step,
            classes=checkpoint.num_classes,
            ranks=checkpoint.ranks,
            checkpoint=checkpoint.backbone.uri.rpartition("/")[0],
        )
        metrics.update({name: round(value, 6) for name, value in checkpoint.figures.items()})


def _train(backend: Backend, config: PipelineConfig, arguments: Sequence[str]) -> None:
    """Train, and when that fails raise the error that a rank raised on purpose, if one did."""
    before = _left(config)  # by an earlier try; a rank of a job that still runs may own it
    try:
        backend.train(config, arguments)
    except RankKilledError as error:
        raise _with_advice(config, error) from error
    except TrainError as error:
        left = _left(config)
        raise (_reason(left) if left != before else None) or _with_advice(config, error) from error


def _left(config: PipelineConfig) -> bytes:
    """Return what lies in the store as the reason of a failure; empty: nothing, or no answer."""
    try:
        return storage.read_bytes(doorway.failure_uri(config, "train"))
    except StorageError:
        return b""


def _reason(left: bytes) -> PlscError | None:
    """Return the error that ``left`` tells of, if it is one of ours."""
    if not left:
        return None
    failure = json.loads(left)
    if failure["error"] not in plsc.errors.__all__:
        return None
    error: PlscError = getattr(plsc.errors, failure["error"])(failure["message"])
    return error


def _with_advice(config: PipelineConfig, error: TrainError) -> TrainError:
    folder = storage.join(config.store_uri, "runs", config.run_id, "checkpoints")
    try:
        found = [info.uri for info in storage.list_objects(folder + "/")]
    except StorageError as trouble:
        return TrainError(f"{error}; whether there is a checkpoint is not known: {trouble}")
    steps = [int(match[1]) for uri in found if (match := re.search(r"step-(\d+)/index.json$", uri))]
    if not steps:
        return TrainError(f"{error}; no checkpoint was written yet: start again")
    return TrainError(
        f"{error}; resume run {config.run_id} from its checkpoint of step {max(steps)}"
    )
