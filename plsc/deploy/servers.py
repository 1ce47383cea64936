"""Servers: where a model is brought into service, one Triton or every pod of a Deployment."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Protocol

from plsc.client import GrpcTransport
from plsc.deploy.control import Control
from plsc.errors import PlscError

__all__ = ["Server", "Servers", "SingleServer"]


@dataclass(frozen=True)
class Server:
    """One Triton."""

    name: str
    """What messages call it."""
    uid: str
    """Another for every server that ever was."""
    control: Control
    transport: GrpcTransport
    """To this very server."""


class Servers(Protocol):
    """All Tritons among which the clients of one address are divided."""

    @property
    def entrance(self) -> GrpcTransport | None:
        """The clients' address; None where it is that of the only server."""

    def current(self) -> list[Server]:
        """Return the servers that take requests now.

        A server that is starting is waited for: it has read the repository as it was before.
        """

    def is_gone(self, server: Server) -> bool:
        """Return whether a server was taken away, so that its failures mean nothing."""

    def explain(self, server: Server, error: PlscError) -> str:
        """Return what is known about a server that failed, to stand behind ``error``'s message."""


@dataclass(frozen=True)
class SingleServer:
    """The one server that is there."""

    server: Server

    @classmethod
    @contextmanager
    def reach(cls, address: str, *, timeout_s: float) -> Iterator["SingleServer"]:
        """Connect to a server within the block, and wait until it takes requests.

        Raises:
            DeployError: If it does not within ``timeout_s`` seconds.
        """
        with (
            Control(address, timeout_s=timeout_s) as control,
            closing(GrpcTransport(address, timeout_s=timeout_s)) as transport,
        ):
            control.await_ready()
            yield cls(Server(address, address, control, transport))

    @property
    def entrance(self) -> GrpcTransport | None:
        """None: the clients' address is the server's."""
        return None

    def current(self) -> list[Server]:
        """Return the server."""
        return [self.server]

    def is_gone(self, server: Server) -> bool:  # noqa: ARG002
        """Return False: nobody takes this server away."""
        return False

    def explain(self, server: Server, error: PlscError) -> str:  # noqa: ARG002
        """Return nothing: nobody watches over this server."""
        return ""
