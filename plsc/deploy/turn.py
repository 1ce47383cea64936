"""Turn: on a cluster one deploy waits for the other, by a Lease that one of them holds.

There is one Lease for all models of a namespace, so that the account needs no right to others. The
holder is a pod. A Lease whose holder has ended, killed perhaps, is taken over: no clock is needed.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from plsc.cluster.api import Api, ConflictError
from plsc.cluster.kinds import POD, Kind
from plsc.cluster.place import Place
from plsc.cluster.refusals import ForbiddenError
from plsc.errors import ClusterError

__all__ = ["LEASE", "taken"]

log = logging.getLogger(__name__)

LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

_NAME = "plsc-deploy"
_POLL_S = 2.0


@contextmanager
def taken(api: Api, model_uri: str) -> Iterator[None]:
    """Within the block, no other pod of this namespace deploys a model.

    Outside of the cluster, and where the account may not use Leases, nobody is kept from it. There
    is no limit to the wait but the end of the other pods, which their own steps have.

    Args:
        api: The cluster.
        model_uri: The model's folder in the repository; the others' messages name it.

    Raises:
        ClusterError: If the cluster refuses.
    """
    holder = Place.here(api).pod
    try:
        uid = _take(api, model_uri, holder) if holder else ""
    except ForbiddenError as error:
        log.warning("two deploys at once would not wait for each other: %s", error)
        uid = ""
    try:
        yield
    finally:
        if uid:
            _give_back(api, uid)


def _give_back(api: Api, uid: str) -> None:
    try:
        api.delete(LEASE, _NAME, uid=uid)
    except ClusterError as error:  # it goes over when this pod has ended
        log.warning("the turn could not be given back: %s", error)


def _take(api: Api, model_uri: str, holder: str) -> str:
    """Create the Lease, when nobody who lives holds it, and return its uid."""
    told = ""
    while True:
        try:
            return str(api.create(LEASE, _manifest(model_uri, holder))["metadata"]["uid"])
        except ConflictError:
            found = api.get(LEASE, _NAME)
        if found is None:
            continue
        other, uid = found["spec"].get("holderIdentity", ""), found["metadata"]["uid"]
        if other == holder:  # the answer to an earlier try was lost
            return str(uid)
        if not _lives(api, other):
            _discard(api, found)
            continue
        if other != told:
            log.info("pod %s deploys %s: waiting for its end", other, _model(found))
            told = other
        time.sleep(_POLL_S)


def _discard(api: Api, lease: dict[str, Any]) -> None:
    """Delete a Lease, unless somebody else took it over in this moment."""
    try:
        api.delete(LEASE, _NAME, uid=lease["metadata"]["uid"])
    except ConflictError:
        return
    log.info("pod %s ended without giving back its turn", lease["spec"].get("holderIdentity"))


def _model(lease: dict[str, Any]) -> str:
    return str(lease["metadata"].get("annotations", {}).get("plsc/model", "a model"))


def _lives(api: Api, pod_name: str) -> bool:
    pod = api.get(POD, pod_name) if pod_name else None
    return pod is not None and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def _manifest(model_uri: str, holder: str) -> dict[str, Any]:
    acquired_at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.name,
        "metadata": {
            "name": _NAME,
            "labels": {"app.kubernetes.io/part-of": "plsc", "plsc/step": "deploy"},
            "annotations": {"plsc/model": model_uri},
        },
        "spec": {"holderIdentity": holder, "acquireTime": acquired_at},
    }
