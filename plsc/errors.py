"""Every error that plsc raises on purpose, and the exit code with which a doorway ends on it.

::

    PlscError                      1
    ├── ConfigError                2   a setting, or two that do not go together
    ├── StorageError               3   the object store: missing, refused, cut off, full
    ├── ArtifactError              3   something that passed through a door is damaged
    │   ├── RecordError            3   a line, a part or a list of the input
    │   ├── ShardError             3   a shard of a data set
    │   ├── CheckpointError        3   a checkpoint
    │   └── BenchmarkError         3   a verification set (.bin)
    ├── TrainError                 1   training itself: a rank died, a value is not finite
    ├── GateFailed                 4   the model verifies worse than the thresholds ask
    ├── ExportError                1   the graph differs from the model
    ├── ClusterError            1   Kubernetes: refused, unreachable, or a job on it failed
    ├── DeployError                1   the new version was not taken; the old one still serves
    └── ServingError               1   the client's side of the wire
        ├── ServerUnavailable      1
        └── BadResponse            1

A message says what was expected, what was found, where, and what to do.
"""

__all__ = [
    "ArtifactError",
    "BadResponse",
    "BenchmarkError",
    "CheckpointError",
    "ClusterError",
    "ConfigError",
    "DeployError",
    "ExportError",
    "GateFailed",
    "PlscError",
    "RecordError",
    "ServerUnavailable",
    "ServingError",
    "ShardError",
    "StorageError",
    "TrainError",
]


class PlscError(Exception):
    """Base of all errors that plsc raises on purpose."""

    exit_code: int = 1


class ConfigError(PlscError):
    """A setting is wrong, or two settings do not go together."""

    exit_code = 2


class StorageError(PlscError):
    """The object store (or the disk) did not give or take what was asked."""

    exit_code = 3


class ArtifactError(PlscError):
    """Something that passed through a door is not what its index says."""

    exit_code = 3


class RecordError(ArtifactError):
    """The input records cannot be used: a list, a part, or too many bad rows."""


class ShardError(ArtifactError):
    """A shard of a data set is missing, altered or unreadable."""


class CheckpointError(ArtifactError):
    """A checkpoint is missing, altered, or belongs to another model."""


class BenchmarkError(ArtifactError):
    """A verification set cannot be read safely or does not hold what it should."""


class TrainError(PlscError):
    """Training stopped: a rank died, or a value is not finite."""


class GateFailed(PlscError):  # noqa: N818  it is a verdict, and reads as one
    """The model verifies worse than the thresholds ask: nothing is deployed."""

    exit_code = 4


class ExportError(PlscError):
    """The exported graph does not compute what the model computes."""


class ClusterError(PlscError):
    """The Kubernetes cluster did not do what was asked, or a job of ours on it failed."""


class DeployError(PlscError):
    """A new version was not taken over; what served before still serves."""


class ServingError(PlscError):
    """A request to the endpoint failed."""


class ServerUnavailable(ServingError):  # noqa: N818  httpx and Triton use the word so
    """No server answers at the address, or the model is not loaded there."""


class BadResponse(ServingError):  # noqa: N818
    """The server answered with something that is not embeddings of the asked shape."""
