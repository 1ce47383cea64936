"""Rollout: try a graph beside what serves, switch to it, and go back on any failure."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plsc.artifacts.onnx_model import OnnxModel
from plsc.client import CANDIDATE_SUFFIX, GrpcTransport
from plsc.deploy.canary import Canary
from plsc.deploy.control import Control
from plsc.deploy.repository import ModelFolder, model_config, served_version
from plsc.errors import DeployError, PlscError

__all__ = ["Rollout", "Switch"]

log = logging.getLogger(__name__)

_ATTEMPTS = 3


@dataclass(frozen=True)
class Switch:
    """What a rollout did."""

    version: int
    previous_version: int | None
    canary_max_abs: float


@dataclass(frozen=True)
class Rollout:
    """Brings one graph into service under the name of ``folder``."""

    folder: ModelFolder
    control: Control
    transport: GrpcTransport
    canary: Canary
    model: OnnxModel
    graph_path: Path
    parameters: Mapping[str, str]

    def rehearse(self) -> None:
        """Serve the graph under a name that no client asks for, check it, and take it away again.

        Raises:
            DeployError: If the server does not load it or computes something else; nothing has
                changed then.
        """
        candidate = ModelFolder(self.folder.repository_uri, f"{self.folder.name}{CANDIDATE_SUFFIX}")
        candidate.remove()
        self.control.unload(candidate.name)
        self.control.await_gone(candidate.name)
        try:
            candidate.write_version(1, self.graph_path, self.model.graph.sha256)
            candidate.write_config(self._config(candidate, 1))
            self.control.load(candidate.name)
            gap = self.canary.check(self.transport, candidate.name, 1)
        finally:
            self.control.unload(candidate.name)
            candidate.remove()
        log.info("canary: %d images differ by at most %.1e", len(self.canary.images), gap)

    def switch(self) -> Switch:
        """Make the graph the next version, and the one that clients get.

        Triton loads the new version beside the old one and lets go of the old one when the new one
        is ready and the old one's last request is answered; clients see no gap.

        Raises:
            DeployError: If the new version does not load or computes something else. The old one
                serves on, and the new one is removed.
        """
        before = self.folder.read_config()
        previous = served_version(before, self.folder.config_uri)
        version = max([*self.folder.versions(), previous or 0], default=0) + 1
        with self._undone_on_failure(version, before, previous):
            self.folder.write_version(version, self.graph_path, self.model.graph.sha256)
            self._activate(self._config(self.folder, version), version)
            gap = self.canary.check(self.transport, self.folder.name, version)
        return Switch(version, previous, gap)

    def prune(self, keep: int, serving: int) -> None:
        """Remove all versions but the ``keep`` newest; ``serving`` stays in any case."""
        for version in self.folder.versions()[:-keep]:
            if version != serving:
                self.folder.remove_version(version)
                log.info(
                    "%s: version %d removed, the %d newest are kept",
                    self.folder.name,
                    version,
                    keep,
                )

    def _config(self, folder: ModelFolder, version: int) -> bytes:
        return model_config(folder.name, version, self.model, self.parameters)

    def _activate(self, content: bytes, version: int | None) -> None:
        """Commit ``content`` as the configuration, load it, and see that its ``version`` is ready.

        Triton tells by the second of its last change whether a configuration is new; of two in one
        second it misses the second, says "loaded" and changes nothing. Then it is written again.

        Raises:
            DeployError: If Triton does not load it, or the version does not get ready.
        """
        for _ in range(_ATTEMPTS):
            self.folder.write_config(content)
            self.control.load(self.folder.name)
            if version is None or self.control.is_ready(self.folder.name, version):
                return
            time.sleep(1.1)
        raise DeployError(
            f"Triton says that it loaded {self.folder.name!r}, but version {version} is not ready"
        )

    @contextmanager
    def _undone_on_failure(
        self, version: int, before: bytes | None, previous: int | None
    ) -> Iterator[None]:
        """Put repository and server back, should the block fail or be interrupted."""
        try:
            yield
        except BaseException as error:
            log.warning("%s: taking version %d back", self.folder.name, version)
            try:
                self._undo(version, before, previous)
            except PlscError as failure:
                raise DeployError(f"{error}; and it could not be taken back: {failure}") from error
            if isinstance(error, PlscError):
                stays = (
                    f"version {previous} serves on" if previous else "no version serves, as before"
                )
                raise DeployError(f"{error}; {stays}") from error
            raise

    def _undo(self, version: int, before: bytes | None, previous: int | None) -> None:
        if before is None:
            self.folder.remove_config()
            self.control.unload(self.folder.name)
        else:
            self._activate(before, previous)
        self.folder.remove_version(version)
