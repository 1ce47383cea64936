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

_FINAL = (2, 3)  # exit codes that the template's job does not try again

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


def taken(work_uri: str, culprit: str) -> PlscError | None:
    """Return the error of the pod that failed the job, and remove all that were left behind.

    Only errors of ``plsc.errors`` come back as what they were. None: nothing is known of it.

    Args:
        work_uri: Where the reasons were left.
        culprit: Index of the pod that seems to have begun it; empty: unknown. Without a reason of
            its own, the lowest index is taken whose error ends a job at once: others may be of pods
            that were to be tried again when the job failed.
    """
    prefix = storage.join(work_uri, "failures") + "/"
    with suppress(StorageError):
        errors: dict[str, PlscError] = {}
        for uri in sorted(info.uri for info in storage.list_objects(prefix)):
            reason = json.loads(storage.read_bytes(uri))
            index = str(int(uri.removeprefix(prefix).removesuffix(".json")))
            if reason["error"] in plsc.errors.__all__:
                errors[index] = getattr(plsc.errors, reason["error"])(reason["message"])
        storage.delete_prefix(prefix)
        final = (one for one in errors.values() if _is_final(one))
        return errors.get(culprit) or next(final, None)
    return None


def _is_final(error: PlscError) -> bool:
    return error.exit_code in _FINAL and not isinstance(error, StorageError)
