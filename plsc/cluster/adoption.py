"""Having a job exactly once: made, or adopted from an earlier try of the same step."""

import logging
import time
from collections.abc import Callable
from typing import Any

from plsc.cluster.api import Api
from plsc.cluster.job_request import SPEC_HASH, JobRequest
from plsc.cluster.job_state import JobState
from plsc.cluster.kinds import POD, PYTORCHJOB
from plsc.cluster.place import Place
from plsc.cluster.refusals import ConflictError, MissingError
from plsc.errors import ClusterError

__all__ = ["make_or_adopt"]

log = logging.getLogger(__name__)

_RUN_ID = "plsc/run-id"
_LOOK_S = 0.5
_BEYOND_GRACE_S = 90.0


def make_or_adopt(api: Api, place: Place, request: JobRequest) -> tuple[dict[str, Any], bool]:
    """Return the job of ``request`` and whether it was there already.

    A job of an earlier try is adopted when it does the same and is alive or has succeeded. One that
    has failed, does something else for the same part of the run, or is being deleted is removed
    with its pods before the new one is made: two of them would write to the same place. So would
    the pods of a job that somebody has deleted, which run on in their grace: they are waited for.

    Raises:
        ClusterError: If Kubernetes refuses, a job of another run has the name, or the former job's
            pods do not go.
    """
    for former in _formers(api, request):
        if former["metadata"]["name"] != request.name and not _is_past(former, request):
            _remove(api, request, former, "it was made from other settings")
    while True:
        job = api.get(request.kind, request.name)
        if job is None:
            what = f"the pods of former jobs like {request.name}"
            wait_until_gone(lambda: _leftovers(api, request), what, _limit_s(request))
            made = _made(api, place, request)
            if made is not None:
                return made, False
            continue
        obstacle = _what_speaks_against(job, request)
        if not obstacle:
            log.info("adopted %s of an earlier try", request.title)
            return job, True
        _remove(api, request, job, obstacle)


def _formers(api: Api, request: JobRequest) -> list[dict[str, Any]]:
    try:
        return api.list(request.kind, labels=request.labels)
    except MissingError as error:
        if request.kind != PYTORCHJOB:
            raise
        raise ClusterError(
            f"{error}; install Kubeflow's training operator v1.9, which knows PyTorchJobs"
        ) from error


def _is_past(job: dict[str, Any], request: JobRequest) -> bool:
    """Return whether a job's pods do nothing more: those of a failed PyTorchJob are kept going."""
    state = JobState.of(job)
    ends = state.has_succeeded if request.kind == PYTORCHJOB else state.has_ended
    return ends and not state.is_being_deleted


def _leftovers(api: Api, request: JobRequest) -> list[str]:
    """Return the pods of jobs that are gone that may write where the one to be made will.

    None as soon as somebody else has made it: then it is to be adopted.
    """
    if api.get(request.kind, request.name) is not None:
        return []
    (of_a_job,) = request.pod_labels
    return [
        pod["metadata"]["name"]
        for pod in api.list(POD, labels=request.labels)
        if of_a_job in pod["metadata"]["labels"]
        and (pod.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}
    ]


def _made(api: Api, place: Place, request: JobRequest) -> dict[str, Any] | None:
    """Return the new job; None if somebody, perhaps a lost try of ours, was faster."""
    try:
        job = api.create(request.kind, request.object(place))
    except ConflictError:
        return None
    count = request.num_pods
    log.info("created %s, %d pod%s", request.title, count, "s" if count > 1 else "")
    return job


def _what_speaks_against(job: dict[str, Any], request: JobRequest) -> str:
    """Return why a job of the name cannot be adopted; empty: it can.

    Raises:
        ClusterError: If it is not this run's: then it is not ours to remove.
    """
    run = (job["metadata"].get("labels") or {}).get(_RUN_ID, "unknown")
    if run != request.labels[_RUN_ID]:
        raise ClusterError(
            f"expected {request.title} to be of run {request.labels[_RUN_ID]}, but its label "
            f"{_RUN_ID} says {run}: delete it if nobody needs it, or use another run_id"
        )
    state = JobState.of(job)
    if state.is_being_deleted:
        return "it is being deleted"
    if (job["metadata"].get("annotations") or {}).get(SPEC_HASH) != request.spec_hash:
        return "it was made from other settings"
    return "it has failed" if state.has_failed else ""


def _remove(api: Api, request: JobRequest, job: dict[str, Any], reason: str) -> None:
    """Delete a job and wait until it and its pods are gone."""
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    log.info("removing the former %s %s: %s", request.kind.name, name, reason)
    try:
        api.delete(request.kind, name, uid=uid)
    except ConflictError:
        return  # another one of the name by now: look again
    limit_s = _limit_s(request)
    wait_until_gone(lambda: _same(api.get(request.kind, name), uid), f"{name}", limit_s)
    (key,) = request.pod_labels

    def pods() -> list[str]:
        found = api.list(POD, labels={key: name})
        return [pod["metadata"]["name"] for pod in found if _is_of(pod, uid)]

    wait_until_gone(pods, f"the pods of {name}", limit_s)


def _limit_s(request: JobRequest) -> float:
    """Return how long a pod may take to go."""
    return request.pods.grace_s + _BEYOND_GRACE_S


def _same(job: dict[str, Any] | None, uid: str) -> list[str]:
    return [job["metadata"]["name"]] if job and job["metadata"]["uid"] == uid else []


def _is_of(pod: dict[str, Any], uid: str) -> bool:
    """Return whether the pod belongs to the job and may still do something."""
    owners = pod["metadata"].get("ownerReferences") or []
    return any(owner["uid"] == uid for owner in owners)


def wait_until_gone(what_is_left: Callable[[], list[str]], what: str, limit_s: float) -> None:
    """Wait until ``what_is_left`` returns nothing.

    Raises:
        ClusterError: If that takes longer than ``limit_s`` seconds; names what is left.
    """
    end = time.monotonic() + limit_s
    is_told = False
    while left := what_is_left():
        if time.monotonic() > end:
            raise ClusterError(
                f"{what} should be gone, but after {limit_s:g} s there is still {', '.join(left)}: "
                "its node may be lost; see `kubectl describe`, and remove it with "
                "`kubectl delete --force` when it runs no more"
            )
        if not is_told:
            log.info("waiting for the end of %s: %s", what, ", ".join(left))
            is_told = True
        time.sleep(_LOOK_S)
