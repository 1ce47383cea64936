"""How this process reaches the API server, and as whom: its pod's account, or a kubeconfig."""

import os
from dataclasses import dataclass
from pathlib import Path

from kubernetes.client import ApiClient, Configuration
from kubernetes.config import (
    ConfigException,
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)

from plsc.cluster import is_in_cluster
from plsc.errors import ClusterError

__all__ = ["Connection", "find_connection"]

_ACCOUNT_PATH = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Connection:
    """An address and a way to prove who one is; opens pools of connections.

    Attributes:
        configuration: Of the Kubernetes library; it renews a service account's token itself.
        namespace: Where to work.
        account: Who we are, in words for errors.
    """

    configuration: Configuration
    namespace: str
    account: str

    def open(self) -> ApiClient:
        """Return a client with a pool of its own."""
        return ApiClient(self.configuration)


def find_connection() -> Connection:
    """Return the connection of this pod's service account, else that of the kubeconfig.

    Raises:
        ClusterError: If there is neither, or it cannot be used.
    """
    configuration = Configuration()
    configuration.retries = False  # plsc.cluster.patience decides what is tried again, and how long
    try:
        if is_in_cluster():
            return _of_the_pod(configuration)
        return _of_the_kubeconfig(configuration)
    except (ConfigException, OSError) as error:
        where = "this pod's service account" if is_in_cluster() else f"{_kubeconfig()}"
        raise ClusterError(
            f"cannot reach a Kubernetes cluster by {where}: {error}; run in a pod with a service "
            "account token, or set KUBECONFIG to a file that kubectl can use"
        ) from error


def _of_the_pod(configuration: Configuration) -> Connection:
    load_incluster_config(client_configuration=configuration)
    namespace = (_ACCOUNT_PATH / "namespace").read_text().strip()
    return Connection(configuration, namespace, "the service account of this pod")


def _of_the_kubeconfig(configuration: Configuration) -> Connection:
    path = _kubeconfig()
    load_kube_config(config_file=path, client_configuration=configuration)
    _, context = list_kube_config_contexts(config_file=path)
    user = context["context"].get("user", "")
    namespace = context["context"].get("namespace") or "default"
    return Connection(configuration, namespace, f"user {user!r} of {path}")


def _kubeconfig() -> str:
    # The library reads the variable when it is imported: too early for us.
    return os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
