"""Deployment: what serves after deploy."""

from plsc.artifacts.index import Artifact

__all__ = ["Deployment"]


class Deployment(Artifact):
    """Index of a live endpoint."""

    endpoint: str
    """gRPC address, host:port."""
    model: str
    """The name that clients ask for."""
    version: int
    """The version that serves."""
    previous_version: int | None
    """The version that served before, if there was one."""
    repository_uri: str
    """Triton's model repository."""
    canary_max_abs: float
    """Largest absolute difference between embeddings over the wire and those of the exported graph."""
