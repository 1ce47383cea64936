"""A server as a process: started, recognized by pid and start time, stopped for certain."""

import logging
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pydantic

__all__ = [
    "Launch",
    "Server",
    "ServicesError",
    "await_ready",
    "choose_ports",
    "port_is_free",
    "spawn",
    "stop",
]

log = logging.getLogger(__name__)

_PORTS = range(15000, 22000)
"""Ports are taken from here: they, and they + 10000, lie below the kernel's range for clients."""


class ServicesError(Exception):
    """A local server could not be started, found or stopped."""


class Server(pydantic.BaseModel):
    """A server that runs, or ran: what ``services.json`` holds of it."""

    pid: int
    create_time: float
    """Seconds since the epoch; with ``pid`` it names one process, though pids are used again."""
    command: list[str]
    ports: dict[str, int]
    log_path: Path

    def process(self) -> psutil.Process | None:
        """Return the living process, or None."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True)
class Launch:
    """How to start a server. Everyone can read ``command``: no credential may stand in it."""

    name: str
    command: list[str]
    environment: dict[str, str]
    ports: dict[str, int]
    working_path: Path
    log_path: Path
    prepare: Callable[[], None]
    """Makes what the server finds on disk; called only when it is started."""
    is_ready: Callable[[], bool]


def port_is_free(port: int) -> bool:
    """Return whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_ports(
    name: str, roles: Iterable[str], recorded: dict[str, int], *, paired: tuple[str, ...] = ()
) -> dict[str, int]:
    """Return a free port for each role: the recorded one where it is free.

    Args:
        name: The server, for messages.
        roles: What the ports are for.
        recorded: Ports of the last start.
        paired: Roles that need port + 10000 as well.

    Raises:
        ServicesError: If no port is free.
    """
    ports: dict[str, int] = {}
    for role in roles:
        wanted = recorded.get(role)
        if wanted and _usable(wanted, paired=role in paired):
            ports[role] = wanted
            continue
        candidates = random.sample(_PORTS, k=200)
        found = next(
            (
                p
                for p in candidates
                if p not in ports.values() and _usable(p, paired=role in paired)
            ),
            None,
        )
        if found is None:
            raise ServicesError(
                f"{name}: no free port on 127.0.0.1 in {_PORTS.start}..{_PORTS.stop}: free some"
            )
        if wanted:
            log.warning(
                "%s: port %d (%s) is in use by another process: taking %d",
                name,
                wanted,
                role,
                found,
            )
        ports[role] = found
    return ports


def _usable(port: int, *, paired: bool) -> bool:
    return port_is_free(port) and (not paired or port_is_free(port + 10000))


def spawn(launch: Launch) -> tuple[Server, "subprocess.Popen[bytes]"]:
    """Start a server in a session of its own, so that Ctrl-C in the terminal does not reach it."""
    launch.log_path.parent.mkdir(parents=True, exist_ok=True)
    with launch.log_path.open("wb") as log_file:
        child = subprocess.Popen(
            launch.command,
            env=launch.environment,
            cwd=launch.working_path,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(
        pid=child.pid,
        create_time=psutil.Process(child.pid).create_time(),
        command=launch.command,
        ports=launch.ports,
        log_path=launch.log_path,
    )
    return server, child


def await_ready(launch: Launch, child: "subprocess.Popen[bytes]", *, timeout_s: float) -> None:
    """Wait until the server is ready.

    Raises:
        ServicesError: If it ends, or is not ready in time; with the last lines of its log.
    """
    begin = time.monotonic()
    try:
        while not launch.is_ready():
            if child.poll() is not None:
                raise ServicesError(
                    f"{launch.name} ended with status {child.returncode} at its start."
                    f" {_tail(launch)}"
                )
            if time.monotonic() - begin > timeout_s:
                raise ServicesError(
                    f"{launch.name} was not ready within {timeout_s:g} s. {_tail(launch)}"
                )
            time.sleep(0.1)
    finally:
        # Whoever starts a server does not wait for its end; Popen would warn about that.
        child.returncode = child.returncode or 0
    log.info("%s: up in %.1f s", launch.name, time.monotonic() - begin)


def _tail(launch: Launch, num_lines: int = 20) -> str:
    text = launch.log_path.read_text(errors="replace")
    lines = [line.rstrip()[:240] for line in text.splitlines() if line.strip(" |+-")]
    shown = "\n".join(f"    {line}" for line in lines[-num_lines:]) or "    (nothing)"
    used = next((line for line in lines if "address already in use" in line.lower()), None)
    reason = f"A port is in use by another process: {used.strip()}\n" if used else ""
    return f"{reason}The end of its log, {launch.log_path}:\n{shown}"


def stop(name: str, server: Server, *, patience_s: float = 20.0) -> bool:
    """Stop a server and its children: SIGTERM, then SIGKILL to what is left after ``patience_s``.

    Returns:
        Whether it ran.

    Raises:
        ServicesError: If a process is still there at the end (another user's, or stuck in the
            kernel).
    """
    process = server.process()
    if process is None:
        return False
    family = [process, *process.children(recursive=True)]
    try:
        process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(family, timeout=patience_s)
        for one in left:
            log.warning(
                "%s: process %d did not end on SIGTERM in %.0f s: killing it",
                name,
                one.pid,
                patience_s,
            )
            one.kill()
        _, left = psutil.wait_procs(left, timeout=5)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied as error:
        raise ServicesError(
            f"{name}: process {error.pid} may not be stopped: it belongs to another user"
        ) from error
    if left:
        raise ServicesError(
            f"{name}: processes {[one.pid for one in left]} do not end, not even killed"
        )
    return True
