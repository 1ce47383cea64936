"""What the API server may say instead of doing what was asked, as errors with advice."""

from plsc.errors import ClusterError

__all__ = [
    "AwayError",
    "ConflictError",
    "ForbiddenError",
    "GoneError",
    "MissingError",
    "NotReadyError",
    "refusal",
]


class MissingError(ClusterError):
    """There is no such object (404)."""


class ConflictError(ClusterError):
    """The object exists already, or somebody else manages these fields (409)."""


class GoneError(ClusterError):
    """What happened since then is forgotten: list again (410)."""


class NotReadyError(ClusterError):
    """It cannot be had in the object's present state, or the request is malformed (400)."""


class ForbiddenError(ClusterError):
    """This account may not do it, or is not known (401, 403)."""


class AwayError(ClusterError):
    """The API server cannot be reached or is busy: later it may do it (429, 5xx, no answer).

    Attributes:
        retry_after_s: How long it asked to be left alone, in seconds; 0: it did not say.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


_BY_STATUS: dict[int, type[ClusterError]] = {
    400: NotReadyError,
    403: ForbiddenError,
    404: MissingError,
    409: ConflictError,
    410: GoneError,
}


def refusal(
    status: int, message: str, *, what: str, account: str, retry_after: str = ""
) -> ClusterError:
    """Return the error that an answer of the API server stands for.

    Args:
        status: The HTTP status.
        message: What the server said.
        what: What was asked: ``create pytorchjobs in namespace kubeflow``.
        account: Who asked.
        retry_after: The header ``Retry-After``; may be empty.
    """
    said = f"Kubernetes refused to {what} ({status}): {message}"
    if status in {429, 500, 502, 503, 504}:
        return AwayError(said, float(retry_after) if retry_after.isdigit() else 0.0)
    if status == 401:
        return ForbiddenError(
            f"{said}; {account} is not known to the cluster: its token or certificate has expired, "
            "or belongs to another cluster"
        )
    if status == 403 and " cannot " in message:  # not a quota, nor a namespace that goes away
        return ForbiddenError(
            f"{said}; {account} needs the rights of the Role plsc-pipeline: apply "
            "manifests/base/platform/rbac.yaml, and bind the Role to the account that runs the step"
        )
    return _BY_STATUS.get(status, ClusterError)(said)
