"""Rollout: try a graph beside what serves, switch to it, and go back on any failure."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plsc.artifacts.onnx_model import OnnxModel
from plsc.client import CANDIDATE_SUFFIX
from plsc.deploy.canary import Canary
from plsc.deploy.repository import ModelFolder, model_config, served_version
from plsc.deploy.servers import Server, Servers
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
    """Brings one graph into service, under the name of ``folder``, on all ``servers``."""

    folder: ModelFolder
    servers: Servers
    canary: Canary
    model: OnnxModel
    graph_path: Path
    parameters: Mapping[str, str]

    def rehearse(self) -> None:
        """Serve the graph under a name that no client asks for, check it, and take it away again.

        One server is enough for that.

        Raises:
            DeployError: If the server does not load it or computes something else; nothing has
                changed then.
        """
        candidate = ModelFolder(self.folder.repository_uri, f"{self.folder.name}{CANDIDATE_SUFFIX}")
        self._withdraw(candidate)
        try:
            candidate.write_version(1, self.graph_path, self.model.graph.sha256)
            candidate.write_config(self._config(candidate, 1))
            gap = self._on_one(lambda server: self._try_out(server, candidate))
        finally:
            self._withdraw(candidate)
        log.info("canary: %d images differ by at most %.1e", len(self.canary.images), gap)

    def switch(self) -> Switch:
        """Make the graph the next version, and the one that clients get.

        Triton loads the new version beside the old one and lets go of the old one when the new one
        is ready and the old one's last request is answered; clients see no gap. One server follows
        the other, so that no other is touched when the first fails.

        Raises:
            DeployError: If the new version does not load or computes something else. The old one
                serves on, everywhere, and the new one is removed.
        """
        before = self.folder.read_config()
        previous = served_version(before, self.folder.config_uri)
        version = max([*self.folder.versions(), previous or 0], default=0) + 1
        with self._undone_on_failure(version, before, previous):
            self.folder.write_version(version, self.graph_path, self.model.graph.sha256)
            content = self._config(self.folder, version)
            self.folder.write_config(content)
            gap = self._switch_all(content, version)
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

    def _on_one(self, act: Callable[[Server], float]) -> float:
        """Act on one server; on another if it is taken away meanwhile."""
        for server in self.servers.current():
            try:
                return act(server)
            except PlscError as error:
                self._raise_unless_gone(server, error)
        raise DeployError("no server is left: deploy again")

    def _everywhere(self, act: Callable[[Server], float]) -> list[float]:
        """Act on every server, those included that come meanwhile; return the results."""
        done: set[str] = set()
        results: list[float] = []
        while new := [server for server in self.servers.current() if server.uid not in done]:
            for server in new:
                done.add(server.uid)
                try:
                    results.append(act(server))
                except PlscError as error:
                    self._raise_unless_gone(server, error)
        return results

    def _raise_unless_gone(self, server: Server, error: PlscError) -> None:
        """Raise ``error`` with what is known about the server, unless that was taken away."""
        if not self.servers.is_gone(server):
            raise DeployError(f"{error}{self.servers.explain(server, error)}") from error
        log.info("%s was taken away meanwhile: going on without it", server.name)

    def _try_out(self, server: Server, candidate: ModelFolder) -> float:
        server.control.load(candidate.name)
        return self.canary.check(server.transport, candidate.name, 1)

    def _withdraw(self, candidate: ModelFolder) -> None:
        """Take the candidate away: its configuration first, then from memory, then the rest."""
        candidate.remove_config()
        self._everywhere(lambda server: _unload(server, candidate.name))
        candidate.remove()

    def _take_over(self, server: Server, content: bytes, version: int) -> float:
        """Make one server serve ``version`` and check it; return the canary's difference."""
        self._activate(server, content, version)
        gap = self.canary.check(server.transport, self.folder.name, version)
        if self.servers.entrance is not None:
            log.info("%s serves version %d", server.name, version)
        return gap

    def _switch_all(self, content: bytes, version: int) -> float:
        """Switch every server, then ask at the entrance as clients do; return the largest gap.

        A server that gives no answer at the entrance may have been taken away: then once more.
        """
        entrance = self.servers.entrance
        for is_last in (False, False, True):
            gaps = self._everywhere(lambda server: self._take_over(server, content, version))
            if not gaps:
                raise DeployError("no server is left: deploy again")
            if entrance is None:
                break
            try:
                gaps.append(self.canary.check(entrance, self.folder.name, version))
                break
            except DeployError as error:
                if is_last:
                    raise
                log.info("trying again: %s", error)
        return max(gaps)

    def _activate(self, server: Server, content: bytes, version: int | None) -> None:
        """Make a server load ``content``, which is committed, and see that ``version`` is ready.

        Triton tells by the second of its last change whether a configuration is new; of two in one
        second it misses the second, says "loaded" and changes nothing. Then it is written again.

        Raises:
            DeployError: If Triton does not load it, or the version does not get ready.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            server.control.load(self.folder.name)
            if version is None or server.control.is_ready(self.folder.name, version):
                return
            if attempt < _ATTEMPTS:
                time.sleep(1.1)
                self.folder.write_config(content)
        raise DeployError(
            f"Triton at {server.name} says that it loaded {self.folder.name!r}, but version"
            f" {version} is not ready"
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
        """Go back on every server; one that does not follow keeps no other from it.

        The repository comes first: should this process be killed meanwhile, whatever starts from
        now on serves what served before.
        """
        failures: list[str] = []
        if before is None:
            self.folder.remove_config()
        else:
            self.folder.write_config(before)

        def go_back(server: Server) -> float:
            try:
                if before is None:
                    server.control.unload(self.folder.name)
                else:
                    self._activate(server, before, previous)
            except PlscError as error:
                failures.extend(self._complaints(server, error))
            return 0.0

        self._everywhere(go_back)
        if failures:
            raise DeployError("; ".join(failures))
        self.folder.remove_version(version)

    def _complaints(self, server: Server, error: PlscError) -> list[str]:
        """Return what is to be said of a server that did not follow; nothing when it is gone."""
        try:
            if self.servers.is_gone(server):
                return []
            return [f"{error}{self.servers.explain(server, error)}"]
        except PlscError as trouble:  # whether it is gone is not known
            return [f"{error} ({trouble})"]


def _unload(server: Server, name: str) -> float:
    server.control.unload(name)
    server.control.await_gone(name)
    return 0.0
