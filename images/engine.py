"""The container engine: a docker client that can use BuildKit, and a daemon for it.

Where no daemon answers, a dockerd of our own is started, with everything below
``~/.cache/plsc/dockerd``; it goes on running, so that layers and images stay, until
``python3 -m images.engine stop``.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

__all__ = ["EngineError", "client", "docker", "install", "is_ready", "ready", "say", "stop"]

HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plsc" / "dockerd"
"""Where our own daemon keeps its data, socket, log and process id."""

_SOCKET = f"unix://{HOME}/docker.sock"
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 30


class EngineError(Exception):
    """There is no engine to use; the text says what to do."""


def say(text: str) -> None:
    """Tell whoever waits at a terminal."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@cache
def client() -> str:
    """Return the path of a docker client that builds with BuildKit; install Debian's if none.

    Clients since 23 need the buildx plugin for that, Debian's 20.10 brings it along.

    Raises:
        EngineError: If there is none, and none can be installed.
    """
    found = _client_with_buildkit()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install("docker.io")
        found = _client_with_buildkit()
    if found is None:
        raise EngineError(
            "expected a docker client with BuildKit, found none: install docker and its buildx"
            " plugin (Debian 12: sudo apt-get install docker.io)"
        )
    return found


def install(package: str) -> None:
    """Install one of Debian's packages, as root.

    Raises:
        EngineError: If apt-get fails.
    """
    say(f"Installing Debian's {package} ...")
    for arguments in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", package]):
        done = _run(["apt-get", "-y", *arguments], {"DEBIAN_FRONTEND": "noninteractive"})
        if done.returncode:
            raise EngineError(f"apt-get {arguments[0]} for {package} failed: {done.stderr.strip()}")


def docker(
    *arguments: str, check: bool = True, timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the docker client, with BuildKit, against the daemon of ``ready``.

    Raises:
        EngineError: If it fails, unless ``check`` is False.
    """
    command = [client(), *arguments]
    try:
        done = _run(command, {"DOCKER_BUILDKIT": "1"}, timeout_s)
    except subprocess.TimeoutExpired as error:
        done = subprocess.CompletedProcess(command, 124, "", str(error))
    if check and done.returncode:
        raise EngineError(f"docker {' '.join(arguments[:2])} failed: {(done.stderr or '').strip()}")
    return done


def ready() -> str:
    """Return a sentence on the daemon that answers; start our own, as root, where none does.

    Sets DOCKER_HOST for this process when it is our own.

    Raises:
        EngineError: If none answers and none can be started.
    """
    if _answers():
        return f"dockerd at {os.environ.get('DOCKER_HOST') or 'its usual place'}"
    if os.environ.get("DOCKER_HOST"):
        raise EngineError(
            f"expected a docker daemon at DOCKER_HOST={os.environ['DOCKER_HOST']}, found none"
            " that answers: start it, or unset the variable"
        )
    os.environ["DOCKER_HOST"] = _SOCKET
    if not _answers():
        _start()
    return f"our own dockerd; to use it yourself: export DOCKER_HOST={_SOCKET}"


def is_ready() -> bool:
    """Return whether a daemon answers, the caller's or ours; starts and installs nothing."""
    if _client_with_buildkit() is None:
        return False
    if _answers():
        return True
    if not os.environ.get("DOCKER_HOST") and _own_process_id() is not None:
        os.environ["DOCKER_HOST"] = _SOCKET
    return _answers()


def stop() -> None:
    """Stop our own daemon, if it runs; images and layers stay on disk."""
    process_id = _own_process_id()
    if process_id is None:
        return
    os.kill(process_id, signal.SIGTERM)
    end = time.monotonic() + _STOP_TIMEOUT_S
    while _own_process_id() is not None and time.monotonic() < end:
        time.sleep(0.1)


def _run(
    command: list[str], variables: dict[str, str] | None = None, timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | (variables or {})
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def _client_with_buildkit() -> str | None:
    candidates = dict.fromkeys([shutil.which("docker"), "/usr/bin/docker"])
    for path in candidates:
        if not path or not os.access(path, os.X_OK):
            continue
        major = _run([path, "version", "--format", "{{.Client.Version}}"]).stdout.partition(".")[0]
        has_own = major.strip().isdigit() and 18 < int(major) < 23
        if has_own or _run([path, "buildx", "version"]).returncode == 0:
            return path
    return None


def _answers() -> bool:
    return docker("info", check=False, timeout_s=20).returncode == 0


def _own_process_id() -> int | None:
    try:
        process_id = int((HOME / "pid").read_text())
        name = Path(f"/proc/{process_id}/comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return process_id if name == "dockerd" else None


def _start() -> None:
    if os.geteuid() != 0:
        raise EngineError("no docker daemon answers: start docker, or run this as root")
    if not shutil.which("dockerd"):
        install("docker.io")
    HOME.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = ["dockerd", f"--data-root={HOME}/data", f"--exec-root={HOME}/exec"]
    command += [f"--pidfile={HOME}/pid", "-H", _SOCKET]
    with (HOME / "log").open("wb") as log:
        daemon = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    end = time.monotonic() + _START_TIMEOUT_S
    while not _answers():
        if daemon.poll() is not None or time.monotonic() > end:
            last = "\n".join((HOME / "log").read_text().splitlines()[-5:])
            raise EngineError(f"dockerd did not come up; the end of {HOME}/log:\n{last}")
        time.sleep(0.2)


if __name__ == "__main__":
    if sys.argv[1:] != ["stop"]:
        sys.exit("usage: python3 -m images.engine stop")
    stop()
