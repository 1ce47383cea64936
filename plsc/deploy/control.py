"""Control: tell a Triton server to load and unload models, and ask what is ready."""

import logging
import time
from types import TracebackType
from typing import Self

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from plsc.errors import DeployError

__all__ = ["Control"]

log = logging.getLogger(__name__)


class Control:
    """The management side of one Triton server."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._client = InferenceServerClient(address, channel_args=[("grpc.enable_http_proxy", 0)])

    def await_ready(self) -> None:
        """Wait until the server takes requests.

        Raises:
            DeployError: If it does not within the time limit.
        """
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                if self._client.is_server_ready(client_timeout=5):
                    return
                reason = "it is not ready"
            except InferenceServerException as error:
                reason = error.message()
            if time.monotonic() > deadline:
                raise DeployError(
                    f"no Triton server is ready at {self.address} after {self._timeout_s:g} s"
                    f" ({reason}): start it (make services-up), or correct deploy.server"
                )
            time.sleep(0.5)

    def load(self, name: str) -> None:
        """Load, or load again, a model as its ``config.pbtxt`` says now.

        Raises:
            DeployError: With the server's words; a model that was loaded before stays as it was.
        """
        try:
            self._client.load_model(name, client_timeout=self._timeout_s)
        except InferenceServerException as error:
            raise DeployError(
                f"Triton at {self.address} does not load {name!r}: {error.message()}"
            ) from error

    def unload(self, name: str) -> None:
        """Take a model out of service; its memory is given back a little later.

        Nothing happens when it is not loaded.

        Raises:
            DeployError: If the server refuses.
        """
        try:
            self._client.unload_model(name, client_timeout=self._timeout_s)
        except InferenceServerException as error:
            raise DeployError(
                f"Triton at {self.address} does not unload {name!r}: {error.message()}"
            ) from error

    def await_gone(self, name: str) -> None:
        """Wait until nothing of a model is loaded any more.

        Raises:
            DeployError: If it stays, or the server does not tell.
        """
        deadline = time.monotonic() + self._timeout_s
        try:
            while self._is_busy(name):
                if time.monotonic() > deadline:
                    raise DeployError(f"Triton at {self.address} does not let go of {name!r}")
                time.sleep(0.05)
        except InferenceServerException as error:
            raise DeployError(
                f"Triton at {self.address} does not tell about {name!r}: {error.message()}"
            ) from error

    def is_ready(self, name: str, version: int) -> bool:
        """Return whether this version of the model answers requests."""
        try:
            return bool(
                self._client.is_model_ready(name, str(version), client_timeout=self._timeout_s)
            )
        except InferenceServerException:
            return False

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _is_busy(self, name: str) -> bool:
        index = self._client.get_model_repository_index(client_timeout=self._timeout_s)
        return any(
            entry.name == name and entry.state in ("READY", "LOADING", "UNLOADING")
            for entry in index.models
        )
