"""Kubernetes: apply objects, follow jobs to their end, and say plainly why one failed.

Nothing here is imported on a laptop: whoever needs a cluster imports a module of this package then
(``plsc.cluster.api`` and what stands on it need the extra ``cluster``), and ``is_in_cluster``
itself needs the standard library only.
"""

import os

__all__ = ["is_in_cluster"]


def is_in_cluster() -> bool:
    """Return whether this process runs in a pod of a Kubernetes cluster."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
