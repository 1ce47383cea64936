"""Deployment: what serves after deploy."""

from plsc.artifacts.index import Artifact, Count, Digest, Uri

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
    repository_uri: Uri
    """Triton's model repository."""
    graph_sha256: Digest
    """Digest of the graph that serves."""
    threshold: float | None
    """Cosine similarity from which clients count two images as the same class; None when nothing
    was evaluated."""
    canary_images: Count
    """Images that the canary sent."""
    canary_max_abs: float
    """Largest absolute difference between embeddings over the wire and those of the exported
    graph."""
