"""The two servers of the local river, on loopback: an S3 object store and Triton.

All their state lies below one folder. ``up`` starts what does not run and
reuses what does, ``down`` stops it, ``status`` tells. The
servers outlive the process that started them.
"""

from pipelines.services.lifecycle import (
    Services,
    ServicesError,
    ServiceStatus,
    down,
    running,
    status,
    up,
)

__all__ = ["ServiceStatus", "Services", "ServicesError", "down", "running", "status", "up"]
