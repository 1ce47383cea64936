"""The wire: what a client needs of one server, and that over Triton's gRPC protocol.

Only here is tritonclient touched. Another transport (a test's, a proxy's) has the same four
methods.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from plsc.errors import BadResponse, ServerUnavailable, ServingError

__all__ = ["CANDIDATE_SUFFIX", "GrpcTransport", "ServedModel", "Transport"]

CANDIDATE_SUFFIX = "-candidate"
"""A deploy tries a new version of a model under its name and this, for some seconds, beside it."""

_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
"""A server that comes back is found again within a second."""

_GONE = (
    "StatusCode.UNAVAILABLE",
    "StatusCode.DEADLINE_EXCEEDED",
    "StatusCode.NOT_FOUND",
    "StatusCode.CANCELLED",
)


@dataclass(frozen=True)
class ServedModel:
    """What a server says about a model: taken from its ``config.pbtxt``."""

    name: str
    version: str
    """The version that clients get; empty when the configuration does not name one."""
    image_size: int
    """Height and width, in pixels."""
    embedding_size: int
    max_batch_size: int
    """Most images in one request."""
    threshold: float | None
    """Cosine similarity from which two images count as one class; None: none was measured."""
    input_name: str = "images"
    output_name: str = "embeddings"


class Transport(Protocol):
    """One server."""

    address: str

    def models(self) -> list[str]:
        """Return the names of the models that are ready, sorted."""

    def describe(self, model: str) -> ServedModel:
        """Return what the server says about ``model``."""

    def infer(
        self, model: ServedModel, images: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], str]:
        """Return the embeddings of uint8 [n, size, size, 3], float32 [n, D], and who answered."""

    def close(self) -> None:
        """Let go of the connection."""


class GrpcTransport:
    """A Triton server, or anything that speaks its gRPC protocol.

    Every method raises ServerUnavailable when the server does not answer within ``timeout_s`` or
    does not hold the model, and ServingError, with the server's words, when it refuses.
    """

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._client = InferenceServerClient(address, channel_args=_CHANNEL)

    def models(self) -> list[str]:
        """Return the names of the models that are ready, sorted."""
        try:
            index = self._client.get_model_repository_index(client_timeout=self._timeout_s)
        except InferenceServerException as error:
            raise self._explained(error, "list its models") from error
        return sorted({entry.name for entry in index.models if entry.state == "READY"})

    def describe(self, model: str) -> ServedModel:
        """Return what the server says about ``model``."""
        try:
            config = self._client.get_model_config(model, client_timeout=self._timeout_s).config
        except InferenceServerException as error:
            raise self._explained(error, f"tell about the model {model!r}") from error
        return self._read(config)

    def infer(
        self, model: ServedModel, images: npt.NDArray[np.uint8], *, version: str = ""
    ) -> tuple[npt.NDArray[np.float32], str]:
        """Return the embeddings of uint8 [n, size, size, 3], float32 [n, D], and who answered.

        Args:
            model: Whom to ask.
            images: At most ``model.max_batch_size`` of them.
            version: The version to ask; empty: the one that the server gives to clients.
        """
        tensor = InferInput(model.input_name, list(images.shape), "UINT8")
        tensor.set_data_from_numpy(np.ascontiguousarray(images))
        try:
            result = self._client.infer(
                model.name,
                [tensor],
                model_version=version,
                outputs=[InferRequestedOutput(model.output_name)],
                client_timeout=self._timeout_s,
            )
            embeddings = result.as_numpy(model.output_name)
        except InferenceServerException as error:
            raise self._explained(error, f"answer for the model {model.name!r}") from error
        except ValueError as error:
            raise BadResponse(
                f"{self.address}: the answer's bytes do not fit its shape: {error}"
            ) from error
        if embeddings is None:
            raise BadResponse(
                f"{self.address}: {model.name!r} answered without the output {model.output_name!r}"
            )
        return embeddings, str(result.get_response().model_version)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _explained(self, error: InferenceServerException, task: str) -> ServingError:
        words = (error.message() or "no reason given").strip()
        if error.status() == "StatusCode.DEADLINE_EXCEEDED":
            words = f"no answer within {self._timeout_s:g} s"
        kind = (
            ServerUnavailable
            if error.status() in _GONE or "unknown model" in words
            else ServingError
        )
        return kind(f"the server at {self.address} did not {task}: {words}")

    def _read(self, config: ModelConfig) -> ServedModel:
        if len(config.input) != 1 or len(config.output) != 1 or len(config.input[0].dims) != 3:
            raise BadResponse(
                f"{self.address}: the model {config.name!r} is not one of plsc: expected one input"
                " [size, size, 3] and one output, found"
                f" {len(config.input)} and {len(config.output)}: check the model's name"
            )
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        versions = config.version_policy.specific.versions
        try:
            threshold = float(parameters["threshold"]) if "threshold" in parameters else None
        except ValueError as error:
            raise BadResponse(
                f"{self.address}: {config.name!r} has the threshold {parameters['threshold']!r}"
            ) from error
        return ServedModel(
            name=config.name,
            version=str(max(versions)) if versions else "",
            image_size=config.input[0].dims[0],
            embedding_size=config.output[0].dims[-1],
            max_batch_size=max(1, config.max_batch_size),
            threshold=threshold,
            input_name=config.input[0].name,
            output_name=config.output[0].name,
        )
