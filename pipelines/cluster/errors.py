"""What can go wrong with a cluster, besides that it refuses."""

from plsc.errors import ClusterError

__all__ = ["UnavailableError", "UncertainError"]


class UnavailableError(ClusterError):
    """KFP could not be reached, or asks to try again."""


class UncertainError(ClusterError):
    """A run may have been started, or not: KFP did not answer."""
