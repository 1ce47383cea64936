"""Work that is shared out to the pods of an Indexed Job, each of which has a number of its own."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plsc.cluster import reasons
from plsc.cluster.api import Api
from plsc.cluster.jobs import JobFailedError, JobRequest, run_to_end
from plsc.cluster.kinds import JOB
from plsc.cluster.place import Place
from plsc.cluster.pods import pod_settings
from plsc.cluster.templates import read_template
from plsc.conf.schema import PodsConfig

__all__ = ["SharedWork", "run_shared"]

log = logging.getLogger(__name__)

_TEMPLATE = "preprocess/indexed-job.yaml"
_CONTAINER = "worker"


@dataclass(frozen=True)
class SharedWork:
    """What the pods of one job do."""

    step: str
    part: str
    """``map``: what of the step."""
    run_id: str
    attempt: str
    """A job that did the same for another attempt is not taken for this one's."""
    pods: PodsConfig
    """Their size; ``cpu`` and ``memory`` are set."""
    count: int
    """Pods, >= 1."""
    command: Sequence[str]
    """What each runs; its index is in the environment, ``JOB_COMPLETION_INDEX``."""
    work_uri: str
    """Folder where the work lies, and the reasons of pods that fail."""
    report_uri: str
    """Where the whole story of a failed job goes."""
    environment: Mapping[str, str] = field(default_factory=dict)


def run_shared(work: SharedWork, *, on_tick: Callable[[], None]) -> None:
    """Run ``work`` as an Indexed Job, or go on with the one that already does, until its end.

    Args:
        work: What to do.
        on_tick: Called now and then.

    Raises:
        PlscError: What a pod raised and left behind as its reason.
        JobFailedError: If the job fails for another reason, which it tells.
        ClusterError: If the cluster cannot be asked.
    """
    api = Api.connect()
    request = JobRequest(
        kind=JOB,
        manifest=_manifest(work),
        step=work.step,
        part=work.part,
        run_id=work.run_id,
        pods=work.pods,
        container=_CONTAINER,
        speaker={},
        report_uri=work.report_uri,
    )
    try:
        run_to_end(api, Place.here(api), request, on_tick=on_tick)
    except JobFailedError as error:
        # Without a pod that ran, what lies there is of an earlier try.
        reason = reasons.taken(work.work_uri, error.index) if error.has_started else None
        if reason is None:
            raise
        log.error("%s", error)  # noqa: TRY400  it names the pod; what is raised says why
        raise reason from error


def _manifest(work: SharedWork) -> dict[str, Any]:
    """Return the template's job with everything in it that the work and its pods ask for."""
    (template,) = read_template(_TEMPLATE)
    manifest = copy.deepcopy(template)
    spec = manifest["spec"]
    spec |= {
        "completions": work.count,
        "parallelism": work.count,
        "backoffLimitPerIndex": work.pods.max_restarts,
        "activeDeadlineSeconds": work.pods.deadline_s,
        "ttlSecondsAfterFinished": work.pods.keep_s,
    }
    pod = spec["template"]
    pod["metadata"].setdefault("annotations", {})["plsc/attempt"] = work.attempt
    pod["spec"] = pod_settings(pod["spec"], work.pods, None)
    container = next(one for one in pod["spec"]["containers"] if one["name"] == _CONTAINER)
    container["command"] = list(work.command)
    container["env"] = [
        *container.get("env", []),
        *({"name": name, "value": value} for name, value in work.environment.items()),
    ]
    return manifest
