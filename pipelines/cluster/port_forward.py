"""A way to a service of the cluster through ``kubectl port-forward``, held open by a child."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import IO

from plsc.errors import ClusterError, ConfigError

__all__ = ["PortForward", "target"]

_DEFAULT = "kubeflow/ml-pipeline-ui"
_PATIENCE_S = 30.0
_POLL_S = 0.1

_ENDING_WITH_PARENT = """
import ctypes, os, sys
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl is not None:
    prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
os.execvp(sys.argv[1], sys.argv[1:])
"""


def target(address: str) -> tuple[str, str, str]:
    """Return namespace, service and port of ``kubectl://NAMESPACE/SERVICE[:PORT]``.

    Raises:
        ConfigError: If ``address`` is none.
    """
    text = address.removeprefix("kubectl").removeprefix("://") or _DEFAULT
    found = re.fullmatch(r"([a-z0-9-]+)/([a-z0-9-]+)(?::(\d+))?", text)
    if not found:
        raise ConfigError(
            f"expected kubectl://NAMESPACE/SERVICE or kubectl://NAMESPACE/SERVICE:PORT,"
            f" not {address!r}"
        )
    return found[1], found[2], found[3] or ("8888" if found[2] == "ml-pipeline" else "80")


class PortForward:
    """Reaches ``kubectl://NAMESPACE/SERVICE[:PORT]`` at a free port of the loopback.

    The child leads a session of its own, so that Ctrl-C does not reach it, and ends with this
    process, however that ends. It loses its way when the pod behind the service goes: ``renew``.
    """

    def __init__(self, address: str) -> None:
        """Open the way.

        Raises:
            ConfigError: If ``address`` is none.
            ClusterError: If kubectl is missing, or cannot reach the service.
        """
        self._namespace, self._service, self._port = target(address)
        self._local_port = ""
        self._child: subprocess.Popen[bytes] | None = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def host(self) -> str:
        """The address at this end."""
        return f"http://127.0.0.1:{self._local_port}"

    def renew(self) -> None:
        """Open the way again, at the same port, if it is lost.

        Raises:
            ClusterError: If kubectl cannot reach the service.
        """
        if self._child is None or self._child.poll() is not None:
            self._open()

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(5)
            self._child.kill()
            self._child.wait()
            self._child = None

    def _open(self) -> None:
        self.close()
        if not shutil.which("kubectl"):
            raise ClusterError(
                "KFP_HOST asks for a port-forward, but there is no kubectl on the PATH"
            )
        command = ["kubectl", "-n", self._namespace, "port-forward", "--address", "127.0.0.1"]
        command += [f"service/{self._service}", f"{self._local_port}:{self._port}"]
        with tempfile.TemporaryFile() as output:  # not a pipe: it tells of every connection
            self._child = subprocess.Popen(
                [sys.executable, "-c", _ENDING_WITH_PARENT, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._local_port = self._await_port(self._child, output)

    def _await_port(self, child: "subprocess.Popen[bytes]", output: IO[bytes]) -> str:
        """Return the port that kubectl says it listens at."""
        end, said = time.monotonic() + _PATIENCE_S, ""
        while time.monotonic() < end:
            has_ended = child.poll() is not None
            said = os.pread(output.fileno(), 1 << 16, 0).decode(errors="replace").strip()
            if found := re.search(r"Forwarding from 127\.0\.0\.1:(\d+)", said):
                return found[1]
            if has_ended:
                break
            time.sleep(_POLL_S)
        where = f"service {self._service} in namespace {self._namespace}"
        raise ClusterError(f"kubectl cannot forward a port to {where}: {said or 'it says nothing'}")

    def __enter__(self) -> "PortForward":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
