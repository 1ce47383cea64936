"""Up, down and status: what to start, what to reuse, and what the river gets to know."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.services import object_store, triton
from pipelines.services.process import (
    Launch,
    Server,
    ServicesError,
    await_ready,
    choose_ports,
    spawn,
    stop,
)
from pipelines.services.state import State, locked

__all__ = ["ServiceStatus", "Services", "ServicesError", "down", "running", "status", "up"]

log = logging.getLogger(__name__)

_ORDER = (object_store.NAME, triton.NAME)


@dataclass(frozen=True)
class Services:
    """The servers that run, and how to reach them."""

    state_path: Path
    s3_endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    triton_url: str | None
    """gRPC address, host:port; None when only the object store was asked for."""

    def environment(self) -> dict[str, str]:
        """Return the variables by which child processes find the servers."""
        loopback = ",".join(
            filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1"])
        )
        variables = {
            "S3_ENDPOINT": self.s3_endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": object_store.REGION,
            "NO_PROXY": loopback,
            "no_proxy": loopback,
        }
        return variables | ({"PLSC_TRITON_URL": self.triton_url} if self.triton_url else {})


@dataclass(frozen=True)
class ServiceStatus:
    """How one server does."""

    name: str
    pid: int | None = None
    """None when it does not run."""
    address: str = ""
    memory_bytes: int = 0
    """Of the server and its children."""
    up_s: float = 0.0
    log_path: Path | None = None


def up(state_dir: Path, *, with_triton: bool = True, timeout_s: float = 60.0) -> Services:
    """Start the servers that do not run, wait until they are ready, and return how to reach them.

    Ports and credentials are those of the last time, unless another process has taken a port.

    Args:
        state_dir: Folder for everything they keep.
        with_triton: False starts the object store alone.
        timeout_s: Longest wait for each server.

    Raises:
        ServicesError: If one does not come up; what started before it goes on running.
    """
    state_path = state_dir.resolve()
    with locked(state_path):
        state = State.read(state_path) or State()
        keeper = _Keeper(state_path, state, timeout_s)
        store = keeper.ensure(
            object_store.NAME,
            lambda recorded: choose_ports(
                object_store.NAME, object_store.ROLES, recorded, paired=object_store.PAIRED_ROLES
            ),
            lambda ports: object_store.plan(state_path, state, ports),
        )
        endpoint = object_store.endpoint(store.ports)
        server = None
        if with_triton:
            server = keeper.ensure(
                triton.NAME,
                lambda recorded: choose_ports(triton.NAME, triton.ROLES, recorded),
                lambda ports: triton.plan(state_path, state, ports, endpoint),
            )
    return _services(state_path, state, store, server)


def running(state_dir: Path) -> Services:
    """Return how to reach the servers of ``state_dir``, and start nothing.

    Raises:
        ServicesError: If one does not run.
    """
    state = State.read(state_dir.resolve())
    servers = [state.servers.get(name) if state else None for name in _ORDER]
    store, server = (found if found and found.process() else None for found in servers)
    if state is None or store is None or server is None:
        stopped = ", ".join(one.name for one in status(state_dir) if not one.pid)
        raise ServicesError(f"not running: {stopped}: start it (make services-up)")
    return _services(state_dir.resolve(), state, store, server)


def down(state_dir: Path) -> list[str]:
    """Stop the servers that were started for ``state_dir``, and nothing else; what they keep stays.

    Returns:
        The names of those that ran.

    Raises:
        ServicesError: If one cannot be stopped.
    """
    state_path = state_dir.resolve()
    if not state_path.is_dir():
        return []
    with locked(state_path):
        state = State.read(state_path) or State(servers={})
        stopped = []
        for name in reversed(_ORDER):
            server = state.servers.get(name)
            if server and stop(name, server):
                stopped.append(name)
            if server and name == object_store.NAME:
                object_store.remove_leftovers(server.ports)
    return stopped


def status(state_dir: Path) -> list[ServiceStatus]:
    """Return how each server of ``state_dir`` does."""
    state = State.read(state_dir.resolve())
    return [_status_of(name, state.servers.get(name) if state else None) for name in _ORDER]


class _Keeper:
    """Starts servers or finds them running; each process is written down before it is awaited."""

    def __init__(self, state_path: Path, state: State, timeout_s: float) -> None:
        self._state_path = state_path
        self._state = state
        self._timeout_s = timeout_s

    def ensure(
        self,
        name: str,
        choose: Callable[[dict[str, int]], dict[str, int]],
        plan: Callable[[dict[str, int]], Launch],
    ) -> Server:
        recorded = self._state.servers.get(name)
        if recorded and recorded.process():
            launch = plan(recorded.ports)
            if launch.command == recorded.command and _answers(launch):
                log.info("%s: runs already", name)
                return recorded
            log.warning(
                "%s: process %d does not answer as it should: starting it anew", name, recorded.pid
            )
            stop(name, recorded)
        return self._start(plan(choose(recorded.ports if recorded else {})))

    def _start(self, launch: Launch) -> Server:
        launch.prepare()
        server, child = spawn(launch)
        try:
            self._state.servers[launch.name] = server
            self._state.write(self._state_path)
            await_ready(launch, child, timeout_s=self._timeout_s)
        except BaseException:
            stop(launch.name, server)
            raise
        return server


def _answers(launch: Launch, patience_s: float = 10.0) -> bool:
    deadline = time.monotonic() + patience_s
    while not launch.is_ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _services(state_path: Path, state: State, store: Server, server: Server | None) -> Services:
    return Services(
        state_path=state_path,
        s3_endpoint=object_store.endpoint(store.ports),
        access_key=state.access_key,
        secret_key=state.secret_key.get_secret_value(),
        triton_url=_grpc_address(server) if server else None,
    )


def _grpc_address(server: Server) -> str:
    return f"127.0.0.1:{server.ports['grpc']}"


def _status_of(name: str, server: Server | None) -> ServiceStatus:
    process = server.process() if server else None
    if server is None or process is None:
        return ServiceStatus(name, log_path=server.log_path if server else None)
    family = [process, *process.children(recursive=True)]
    return ServiceStatus(
        name,
        pid=server.pid,
        address=object_store.endpoint(server.ports)
        if name == object_store.NAME
        else _grpc_address(server),
        memory_bytes=sum(one.memory_info().rss for one in family),
        up_s=time.time() - server.create_time,
        log_path=server.log_path,
    )
