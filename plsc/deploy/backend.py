"""Backend: where Triton runs, one server that is there or a Deployment on a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

from plsc.cluster import is_in_cluster
from plsc.conf.choices import DeployBackend
from plsc.conf.schema import DeployConfig
from plsc.deploy.repository import ModelFolder, keep_repository
from plsc.deploy.servers import Servers, SingleServer

__all__ = ["open_servers"]


@contextmanager
def open_servers(settings: DeployConfig) -> Iterator[Servers]:
    """Make the servers ready and keep connections to them within the block.

    Raises:
        ConfigError: If a setting is missing.
        DeployError: If there is no server that is ready in time.
        ClusterError: If the cluster refuses.
        StorageError: If the store refuses.
    """
    timeout_s = settings.timeout_s
    if not _is_deployment(settings.backend):
        with SingleServer.reach(settings.server, timeout_s=timeout_s) as server:
            yield server
        return
    # Kubernetes' library is there only where a cluster is used.
    from plsc.cluster.api import Api  # noqa: PLC0415
    from plsc.deploy import turn  # noqa: PLC0415
    from plsc.deploy.deployment import bring_up  # noqa: PLC0415
    from plsc.deploy.pods import DeploymentPods  # noqa: PLC0415

    with Api.connect() as api:
        keep_repository(settings.repository_uri)
        name = bring_up(api, image=settings.image, timeout_s=timeout_s)
        model = ModelFolder(settings.repository_uri, settings.model_name)
        with (
            turn.taken(api, model.uri),
            DeploymentPods.reach(api, name, settings.server, timeout_s=timeout_s) as pods,
        ):
            yield pods


def _is_deployment(backend: DeployBackend) -> bool:
    if backend is DeployBackend.auto:
        return is_in_cluster()
    return backend is DeployBackend.deployment
