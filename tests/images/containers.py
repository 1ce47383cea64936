"""Containers for tests: run as a cluster would harden them, and removed for certain."""

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from images import engine

HARDENED = (
    "--user=10001:10001",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
"""What manifests/ asks of every pod, in docker's words."""

TIMEOUT_S = 180.0


def run(
    image: str, *command: str, options: tuple[str, ...] = (), network: str = "none"
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in a hardened container to its end."""
    name = f"plsc-test-{uuid.uuid4().hex[:12]}"
    try:
        return engine.docker(
            "run", f"--name={name}", f"--network={network}", *HARDENED, *options, image, *command,
            check=False, timeout_s=TIMEOUT_S,
        )  # fmt: skip
    finally:
        remove(name)


def output(image: str, *command: str, options: tuple[str, ...] = (), network: str = "none") -> str:
    """What ``command`` said, which must end well."""
    done = run(image, *command, options=options, network=network)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@contextmanager
def started(
    image: str, *command: str, options: tuple[str, ...] = (), network: str = "none"
) -> Iterator[str]:
    """A hardened container that runs within the block; its name, which others may call it by."""
    name = f"plsc-test-{uuid.uuid4().hex[:12]}"
    try:
        engine.docker(
            "run", "--detach", f"--name={name}", f"--network={network}", *HARDENED, *options,
            image, *command,
        )  # fmt: skip
        yield name
    finally:
        remove(name)


@contextmanager
def network() -> Iterator[str]:
    """A network of containers that find each other by name and reach nothing else."""
    name = f"plsc-test-{uuid.uuid4().hex[:12]}"
    engine.docker("network", "create", "--internal", name)
    try:
        yield name
    finally:
        engine.docker("network", "rm", name, check=False)


def remove(name: str) -> None:
    engine.docker("rm", "--force", "--volumes", name, check=False)


def log(name: str) -> str:
    done = engine.docker("logs", name, check=False)
    return done.stdout + done.stderr


def state(name: str) -> dict:
    (found,) = json.loads(engine.docker("inspect", name).stdout)
    return found["State"]


def until(is_so: Callable[[], bool], what: str, name: str, timeout_s: float = TIMEOUT_S) -> None:
    """Wait until it is so; fail with the container's last words if it ends before, or never is."""
    end = time.monotonic() + timeout_s
    while not is_so():
        assert state(name)["Running"], f"{name} ended:\n{log(name)[-4000:]}"
        assert time.monotonic() < end, f"{name}: {what}, but it never came\n{log(name)[-4000:]}"
        time.sleep(0.2)
