"""Running a job on the cluster to its end: made once, followed, and explained when it fails."""

import logging
from collections.abc import Callable

from plsc.cluster.adoption import make_or_adopt
from plsc.cluster.api import Api
from plsc.cluster.following import Following
from plsc.cluster.job_request import JobRequest
from plsc.cluster.job_state import JobState
from plsc.cluster.kinds import PYTORCHJOB
from plsc.cluster.place import Place
from plsc.cluster.pod_watch import PodWatch
from plsc.cluster.story import tell_story
from plsc.cluster.termination import Interrupted, Standby, ended_by_sigterm
from plsc.errors import ClusterError

__all__ = ["Interrupted", "JobFailedError", "JobRequest", "run_to_end"]

log = logging.getLogger(__name__)

_PULSE_S = 0.5


class JobFailedError(ClusterError):
    """A job failed, or was given up.

    Attributes:
        has_started: One of its pods has run: the failure may be that of the work itself.
        index: Of the pod that seems to have begun it, in an Indexed Job; else empty.
    """

    def __init__(self, message: str, *, has_started: bool, index: str = "") -> None:
        super().__init__(message)
        self.has_started = has_started
        self.index = index


def run_to_end(
    api: Api,
    place: Place,
    request: JobRequest,
    *,
    on_line: Callable[[str], None] = log.info,
    on_tick: Callable[[], None] = lambda: None,
) -> None:
    """Make the job, or adopt that of an earlier try, and follow it until it has succeeded.

    To be called from the main thread: a SIGTERM ends the process within 0.9 s, and the job with it
    when the whole run is being terminated; else the job goes on, for the next try to adopt. So it
    does when ``on_line`` or ``on_tick`` raises.

    Args:
        api: The cluster.
        place: Where this process runs; its Workflow will own the job.
        request: The job.
        on_line: Called with every line of the speaker's log.
        on_tick: Called every few seconds.

    Raises:
        JobFailedError: If the job failed, was deleted by somebody, or was given up (then it is
            deleted): it could not start within the limits of ``request.pods``, or ran out of memory
            twice. A failed PyTorchJob is deleted too, for its pods would go on; a failed Job stays.
            The text names pod, reason, what to do, and the last lines; the whole story lies at
            ``request.report_uri``.
        ClusterError: If the cluster refuses.
        Interrupted: On SIGTERM; a ``SystemExit`` with code 143.
    """
    with ended_by_sigterm(api, place, request) as standby:
        standby.keep_ready()
        job, is_adopted = make_or_adopt(api, place, request)
        uid = job["metadata"]["uid"]
        with api.twin(patience_s=0.0) as looking:
            watch = PodWatch(looking, request, uid)
            with Following(api, request, job, is_adopted=is_adopted) as following:
                why = _follow(following, watch, standby, on_line=on_line, on_tick=on_tick)
            if why is not None:
                raise _failure(api, request, watch, why, uid)
    log.info("%s has succeeded", request.title)


class _Verdict(str):
    """Why a job is given up that has not failed by itself."""


def _follow(
    following: Following,
    watch: PodWatch,
    standby: Standby,
    *,
    on_line: Callable[[str], None],
    on_tick: Callable[[], None],
) -> "JobState | _Verdict | None":
    """Return how the job failed, or why it is given up; None: it has succeeded."""
    while True:
        heard = following.next(_PULSE_S)
        if isinstance(heard, ClusterError):
            raise heard
        if isinstance(heard, str):
            on_line(heard)
        elif isinstance(heard, JobState):
            watch.state = heard
            if heard.has_ended:
                following.last_words(on_line)
                return None if heard.has_succeeded else heard
        elif heard is None:
            following.last_words(on_line)
            return JobState(is_being_deleted=True)
        if watch.is_due:
            standby.keep_ready()
            verdict = watch.look()
            if verdict:
                return _Verdict(verdict)
            on_tick()


def _failure(
    api: Api, request: JobRequest, watch: PodWatch, why: "JobState | _Verdict", uid: str
) -> JobFailedError:
    """Return the error, once the story is read; a job whose pods would go on is deleted then."""
    goes_on = isinstance(why, _Verdict)
    if isinstance(why, _Verdict):
        said = f"{request.title} was given up: {why}"
    elif why.is_being_deleted:
        said = (
            f"{request.title} was deleted by somebody, or with its Workflow, before it had ended: "
            "run the step again"
        )
    else:
        told = ": ".join(part for part in (why.reason, why.message) if part)
        said = f"{request.title} failed: {told}" if told else f"{request.title} failed"
        watch.look()
        goes_on = request.kind == PYTORCHJOB  # its operator leaves the pods, which restart
    story = tell_story(api, request, watch.pods, said, failed=watch.state.failed)
    if goes_on:
        _delete(api, request, uid)
    return JobFailedError(
        story.told(request, said),
        has_started=watch.has_started,
        index=story.culprit.index if story.culprit else "",
    )


def _delete(api: Api, request: JobRequest, uid: str) -> None:
    """Delete the job; why it failed is more important than that this fails."""
    try:
        api.delete(request.kind, request.name, uid=uid)
    except ClusterError as error:
        log.warning("%s may go on; delete it: %s", request.title, error)
