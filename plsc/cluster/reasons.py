"""Why a pod failed, left in the store by the pod itself, so that the step can raise the same error.

Kubernetes tells no more of it than an exit code.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import plsc.errors
from plsc import storage
from plsc.errors import PlscError, StorageError

__all__ = ["TRY_AGAIN", "left_behind", "taken"]

log = logging.getLogger(__name__)

TRY_AGAIN = 75
"""Exit code of a pod whose store failed for longer than it was patient: unlike 2 and 3, which end
the job, another pod tries again after a while."""


@contextmanager
def left_behind(work_uri: str, index: int) -> Iterator[None]:
    """Within the block, an error of ours leaves its reason below ``work_uri``.

    What an earlier pod of this index left there is removed first. A ``StorageError`` that leaves
    the block has the exit code ``TRY_AGAIN``.
    """
    uri = storage.join(work_uri, "failures", f"{index:05d}.json")
    try:
        storage.delete(uri)
        yield
    except PlscError as error:
        reason = {"error": type(error).__name__, "message": str(error)}
        try:
            storage.write_bytes(uri, json.dumps(reason).encode())
        except StorageError as failure:
            log.warning("the reason could not be left in the store: %s", failure)
        if isinstance(error, StorageError):
            error.exit_code = TRY_AGAIN
        raise


def taken(work_uri: str) -> PlscError | None:
    """Return the error of the pod of the lowest index that left one, and remove all of them.

    Only errors of ``plsc.errors`` come back as what they were; of others None is returned.
    """
    prefix = storage.join(work_uri, "failures") + "/"
    with suppress(StorageError):
        found = sorted(info.uri for info in storage.list_objects(prefix))
        reasons = [json.loads(storage.read_bytes(uri)) for uri in found]
        storage.delete_prefix(prefix)
        for reason in reasons:
            if reason["error"] in plsc.errors.__all__:
                error: PlscError = getattr(plsc.errors, reason["error"])(reason["message"])
                return error
    return None
