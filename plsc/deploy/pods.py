"""The pods of a Deployment as servers: each by its own address, for its Service reaches but one."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from plsc.client import GrpcTransport
from plsc.cluster.api import Api
from plsc.cluster.kinds import DEPLOYMENT, POD
from plsc.deploy.control import Control
from plsc.deploy.deployment import pods_of
from plsc.deploy.servers import Server
from plsc.deploy.trouble import is_ready, troubles
from plsc.errors import ClusterError, DeployError, PlscError

__all__ = ["DeploymentPods"]

log = logging.getLogger(__name__)

_PORT_NAME = "grpc"
_POLL_S = 0.5


class DeploymentPods:
    """Every pod of a Deployment that is ready, whenever asked."""

    def __init__(self, api: Api, name: str, entrance: GrpcTransport, *, timeout_s: float) -> None:
        self.entrance = entrance
        self._api = api
        self._name = name
        self._timeout_s = timeout_s
        self._servers: dict[str, Server] = {}
        self._given_up: set[str] = set()

    @classmethod
    @contextmanager
    def reach(
        cls, api: Api, name: str, address: str, *, timeout_s: float
    ) -> Iterator["DeploymentPods"]:
        """Keep connections within the block.

        Args:
            api: The cluster.
            name: The Deployment.
            address: The clients', host:port: its Service's.
            timeout_s: Longest wait for a pod that is starting, and for an answer.
        """
        pods = cls(api, name, GrpcTransport(address, timeout_s=timeout_s), timeout_s=timeout_s)
        try:
            yield pods
        finally:
            pods.close()

    def current(self) -> list[Server]:
        """Return the pods that are ready, and wait for those whose Triton is starting.

        Those may have read the repository before it changed. What starts later reads it as it is.

        Raises:
            DeployError: If the Deployment is gone.
            ClusterError: If the cluster refuses.
        """
        deadline = time.monotonic() + self._timeout_s
        while True:
            pods = self._pods()
            starting = {
                pod["metadata"]["uid"]: pod["metadata"]["name"]
                for pod in pods
                if _is_starting(pod) and pod["metadata"]["uid"] not in self._given_up
            }
            if not starting:
                return [self._server(pod) for pod in pods if is_ready(pod)]
            if time.monotonic() > deadline:
                self._given_up.update(starting)
                log.warning(
                    "not ready after %g s, going on without: %s",
                    self._timeout_s,
                    ", ".join(sorted(starting.values())),
                )
            else:
                time.sleep(_POLL_S)

    def is_gone(self, server: Server) -> bool:
        """Return whether a pod was deleted, is about to go, or was evicted."""
        pod = self._api.get(POD, server.name)
        return (
            pod is None
            or pod["metadata"]["uid"] != server.uid
            or bool(pod["metadata"].get("deletionTimestamp"))
            or pod.get("status", {}).get("phase") in ("Failed", "Succeeded")
        )

    def explain(self, server: Server, error: PlscError) -> str:
        """Return which pod it is, what became of its containers, and a likely cause."""
        told = f"; that is pod {server.name}"
        if "failed to poll" in str(error):
            told += (
                ": does TRITON_REPOSITORY (ConfigMap plsc-settings) say in Triton's words what"
                " deploy.repository_uri says?"
            )
        try:
            pod = self._api.get(POD, server.name)
        except ClusterError:
            return told
        return told + ("".join(f"; {one}" for one in troubles(pod)) if pod else "")

    def close(self) -> None:
        """Let go of all connections."""
        self.entrance.close()
        for server in self._servers.values():
            server.control.close()
            server.transport.close()

    def _pods(self) -> list[dict[str, Any]]:
        deployment = self._api.get(DEPLOYMENT, self._name)
        if deployment is None:
            raise DeployError(f"Deployment {self._name} was deleted meanwhile: deploy again")
        return pods_of(self._api, deployment)

    def _server(self, pod: dict[str, Any]) -> Server:
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        if uid not in self._servers:
            address = _address(pod)
            self._servers[uid] = Server(
                name,
                uid,
                Control(address, timeout_s=self._timeout_s),
                GrpcTransport(address, timeout_s=self._timeout_s),
            )
        return self._servers[uid]


def _address(pod: dict[str, Any]) -> str:
    """Return a pod's host:port: its container's port of the name ``grpc``."""
    ip = pod["status"]["podIP"]
    ports = [
        port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
        if port.get("name") == _PORT_NAME
    ]
    if not ports:
        raise DeployError(
            f"pod {pod['metadata']['name']} has no container port named {_PORT_NAME!r}: name it"
        )
    return f"[{ip}]:{ports[0]}" if ":" in ip else f"{ip}:{ports[0]}"


def _is_starting(pod: dict[str, Any]) -> bool:
    """Return whether all its containers run, and it is not ready all the same."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    runs = bool(statuses) and all("running" in status.get("state", {}) for status in statuses)
    return runs and not is_ready(pod)
