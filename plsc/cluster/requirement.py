"""What must be there before a stage can have pods of its own. Kubernetes itself is not asked."""

from plsc.cluster import is_in_cluster
from plsc.conf.schema import PodsConfig
from plsc.errors import ConfigError

__all__ = ["check_pods"]


def check_pods(step: str, pods: PodsConfig) -> None:
    """Check that ``pods`` can be had here.

    Raises:
        ConfigError: If this is no cluster, or if it is not said which image they run.
    """
    if not is_in_cluster():
        raise ConfigError(
            f"{step}.pods.count={pods.count} needs a Kubernetes cluster, and this process runs in"
            " none (KUBERNETES_SERVICE_HOST is not set): run it as a step of the pipeline there, or"
            f" set {step}.pods.count=0 to do the work in this process"
        )
    if not pods.image:
        raise ConfigError(
            f"{step}.pods.image is empty: expected the image of plsc-{step} with its registry and"
            " tag, which the compiled pipeline gives in the variable PLSC_WORKER_IMAGE: set one of"
            " them"
        )
