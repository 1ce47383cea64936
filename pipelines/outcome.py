"""How a run ended: what its steps left in the store, and ``last-run.json`` for machines.

``last-run.json``::

    {"run_id", "experiment", "status": "succeeded" | "failed", "seconds",
     "failed_step", "error",                                      # only when failed
     "stages": {step: {"seconds"}},
     "train": {"samples_per_s", "ranks", "classes", "steps"},     # these are empty
     # when the run did not get there
     "benchmarks": {name: {"accuracy", "accuracy_std", "tar_at_far": {far: tar}}},
     "export": {"parity_max_abs"},
     "deploy": {"endpoint", "model", "version"}}
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from plsc import doorway, storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.deployment import Deployment
from plsc.artifacts.index import Artifact
from plsc.artifacts.onnx_model import OnnxModel
from plsc.artifacts.report import Report
from plsc.artifacts.shards import ShardSet
from plsc.conf.schema import PipelineConfig

__all__ = ["Failure", "Indexes", "Outcome", "read_failure", "to_document", "write"]

_A = TypeVar("_A", bound=Artifact)


@dataclass(frozen=True)
class Failure:
    """What stopped a run."""

    step: str
    message: str
    exit_code: int


@dataclass(frozen=True)
class Indexes:
    """What the steps of a run have left; None where it did not get."""

    dataset: ShardSet | None = None
    checkpoint: Checkpoint | None = None
    report: Report | None = None
    onnx: OnnxModel | None = None
    deployment: Deployment | None = None

    @classmethod
    def read(cls, config: PipelineConfig) -> "Indexes":
        """Read the indexes of the run ``config.run_id``.

        Raises:
            StorageError: If the store cannot be asked.
            ArtifactError: If one is damaged.
        """
        return cls(
            dataset=_read(ShardSet, config, "preprocess"),
            checkpoint=_read(Checkpoint, config, "train"),
            report=_read(Report, config, "evaluate"),
            onnx=_read(OnnxModel, config, "export"),
            deployment=_read(Deployment, config, "deploy"),
        )


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run_id: str
    experiment: str
    seconds: float
    """From its first line to its last."""
    step_seconds: dict[str, float]
    indexes: Indexes
    failure: Failure | None


def read_failure(config: PipelineConfig, step: str) -> Failure | None:
    """Return why ``step`` of this run failed, if it could say so.

    Raises:
        StorageError: If the store cannot be asked.
    """
    uri = doorway.failure_uri(config, step)
    if not storage.exists(uri):
        return None
    found = json.loads(storage.read_bytes(uri, limit_bytes=1 << 20))
    return Failure(step, f"{found['error']}: {found['message']}", int(found["exit_code"]))


def to_document(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as plain values for ``last-run.json``."""
    return {
        "run_id": outcome.run_id,
        "experiment": outcome.experiment,
        "status": "failed" if outcome.failure else "succeeded",
        "seconds": outcome.seconds,
        **(
            {"failed_step": outcome.failure.step, "error": outcome.failure.message}
            if outcome.failure
            else {}
        ),
        "stages": {step: {"seconds": seconds} for step, seconds in outcome.step_seconds.items()},
        **_figures(outcome.indexes),
    }


def write(document: dict[str, Any], path: Path) -> None:
    """Write a JSON document at one stroke."""
    storage.write_bytes(str(path), json.dumps(document, indent=1).encode() + b"\n")


def _figures(found: Indexes) -> dict[str, Any]:
    checkpoint, report, onnx, deployment = (
        found.checkpoint,
        found.report,
        found.onnx,
        found.deployment,
    )
    return {
        "train": {
            "samples_per_s": checkpoint.figures.get("samples_per_s"),
            "ranks": checkpoint.ranks,
            "classes": checkpoint.num_classes,
            "steps": checkpoint.step,
        }
        if checkpoint
        else {},
        "benchmarks": {
            result.name: {
                "accuracy": result.accuracy,
                "accuracy_std": result.accuracy_std,
                "tar_at_far": {f"{point.far_target:g}": point.tar for point in result.tar_at_far},
            }
            for result in (report.benchmarks if report else [])
        },
        "export": {"parity_max_abs": onnx.parity_max_abs} if onnx else {},
        "deploy": {
            "endpoint": deployment.endpoint,
            "model": deployment.model,
            "version": deployment.version,
        }
        if deployment
        else {},
    }


def _read(kind: type[_A], config: PipelineConfig, step: str) -> _A | None:
    uri = doorway.index_uri(config, step)
    return kind.read(uri) if storage.exists(uri) else None
