"""Where KFP's pages are to be seen by a person, while a command runs and after it."""

from pipelines.cluster.port_forward import target

__all__ = ["page"]

_API = "ml-pipeline"
_PAGES = "ml-pipeline-ui"


def page(host: str, path: str) -> str:
    """Return the page ``path`` of KFP, and how to open the way to it where there is none.

    Args:
        host: ``KFP_HOST``, checked. A port-forward of this process ends with it: not named here.
        path: Such as ``runs``.
    """
    if host.startswith("http"):
        return f"{host.rstrip('/')}/#/{path}"
    namespace, service, port = target(host)
    if service == _API:
        service, port = _PAGES, "80"
    forward = f"kubectl -n {namespace} port-forward service/{service} 8080:{port}"
    return f"http://localhost:8080/#/{path} after: {forward}"
