"""Triton's model repository: ``<name>/<version>/model.onnx``, and the file that says which serves.

Triton loads the version that ``<name>/config.pbtxt`` names and looks at no other folder. So a
version's files are written first and checked, and writing ``config.pbtxt`` is the commit: a version
that was written half, or by a deploy that was killed, is never served.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, TYPE_UINT8, ModelConfig

from plsc import storage
from plsc.artifacts.onnx_model import INPUT_NAME, OUTPUT_NAME, OnnxModel
from plsc.errors import DeployError

__all__ = ["MAX_BATCH_SIZE", "ModelFolder", "keep_repository", "model_config", "served_version"]

log = logging.getLogger(__name__)

MAX_BATCH_SIZE = 64
"""Most images in one request, and most that the server computes at once."""

_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ModelFolder:
    """One model of a repository."""

    repository_uri: str
    name: str

    @property
    def uri(self) -> str:
        """Where the model's folder lies."""
        return storage.join(self.repository_uri, self.name)

    @property
    def config_uri(self) -> str:
        """Where its ``config.pbtxt`` lies."""
        return storage.join(self.uri, "config.pbtxt")

    def versions(self) -> list[int]:
        """Return the versions that have files, ascending; complete or not."""
        start = len(self.uri) + 1
        found = {info.uri[start:].split("/")[0] for info in storage.list_objects(self.uri + "/")}
        return sorted(int(name) for name in found if name.isdecimal())

    def read_config(self) -> bytes | None:
        """Return ``config.pbtxt``, or None when there is none."""
        if not storage.exists(self.config_uri):
            return None
        return storage.read_bytes(self.config_uri, limit_bytes=_LIMIT_BYTES)

    def write_version(self, version: int, graph_path: Path, sha256: str) -> None:
        """Write a version's graph and check that the store gives back the same bytes.

        Raises:
            DeployError: If it does not.
            StorageError: If the store refuses.
        """
        uri = storage.join(self.uri, str(version), "model.onnx")
        storage.upload(graph_path, uri)
        found = _sha256(uri)
        if found != sha256:
            raise DeployError(
                f"{uri} was written with digest {sha256} and reads as {found}: the store is damaged"
            )

    def write_config(self, content: bytes) -> None:
        """Commit: from now on ``content`` says which version is loaded."""
        storage.write_bytes(self.config_uri, content)

    def remove_config(self) -> None:
        """Withdraw the configuration: the model cannot be loaded any more."""
        storage.delete(self.config_uri)

    def remove_version(self, version: int) -> None:
        """Remove a version's files."""
        storage.delete_prefix(storage.join(self.uri, str(version)))

    def remove(self) -> None:
        """Remove the whole model, its configuration first."""
        self.remove_config()
        storage.delete_prefix(self.uri)


def keep_repository(repository_uri: str) -> None:
    """See that there is a repository to read: Triton does not start on one without any object.

    Raises:
        StorageError: If the store refuses.
    """
    uri = storage.join(repository_uri, ".keep")
    if not storage.exists(uri):
        storage.write_bytes(uri, b"Triton's model repository; this object keeps the folder.\n")


def served_version(content: bytes | None, uri: str) -> int | None:
    """Return the version that a ``config.pbtxt`` names; None when there is none.

    Raises:
        DeployError: If it cannot be parsed.
    """
    if content is None:
        return None
    try:
        config = text_format.Parse(content, ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise DeployError(
            f"{uri} is no Triton model configuration ({error}): repair it, or remove the model"
        ) from error
    return max(config.version_policy.specific.versions, default=None)


def model_config(name: str, version: int, model: OnnxModel, parameters: Mapping[str, str]) -> bytes:
    """Return the ``config.pbtxt`` by which Triton serves ``version`` of ``model``, and no other.

    Args:
        name: The model's name.
        version: The only version to serve.
        model: The graph.
        parameters: What clients can read about the model by GetModelConfig.
    """
    config = ModelConfig(name=name, backend="onnxruntime", max_batch_size=MAX_BATCH_SIZE)
    size = model.image_size
    config.input.add(name=INPUT_NAME, data_type=TYPE_UINT8, dims=[size, size, 3])
    config.output.add(name=OUTPUT_NAME, data_type=TYPE_FP32, dims=[model.embedding_size])
    config.instance_group.add(count=1)  # one that uses all cores, or one on each GPU
    config.version_policy.specific.versions.append(version)
    config.dynamic_batching.SetInParent()
    for key, value in sorted(parameters.items()):
        config.parameters[key].string_value = value
    return text_format.MessageToString(config).encode()


def _sha256(uri: str) -> str:
    digest = hashlib.sha256()
    with storage.open_reader(uri) as reader:
        while chunk := reader.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
