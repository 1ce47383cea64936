"""The lines of a job's speaker: each once, over connections, restarts and new pods."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from plsc.cluster.api import Api
from plsc.cluster.kinds import POD
from plsc.cluster.log_times import nanoseconds
from plsc.cluster.patience import Patience
from plsc.cluster.refusals import MissingError, NotReadyError
from plsc.errors import ClusterError

__all__ = ["LogFollower", "Seen"]

_LOOK_S = 1.0
_OVERLAP_S = 2  # the API counts whole seconds, and two streams share one log
_SECOND_NS = 1_000_000_000


class Seen:
    """Which of the last lines were passed on already, by their times.

    A log is asked for again from a moment before the last line; what is in both answers is passed
    on once, and equal lines of one moment as often as they are there.

    Args:
        has_beginning: The first answer begins with the log; else with its last lines, and what is
            older is left out of later answers too.
    """

    def __init__(self, *, has_beginning: bool = True) -> None:
        self._has_beginning = has_beginning
        self._lines: Counter[tuple[str, str]] = Counter()
        self._first_ns = 0
        self._last_ns = 0

    @property
    def since_time(self) -> str | None:
        """From when on to ask; None: from the beginning."""
        if not self._lines:
            return None
        moment = datetime.fromtimestamp(self._last_ns // _SECOND_NS - _OVERLAP_S, UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def fresh(self, lines: Iterator[tuple[str, str]]) -> Iterator[str]:
        """Yield the text of those of ``lines``, one answer of the API, that were not there yet."""
        known = self._lines.copy()
        for line in lines:
            if not line[0]:
                continue  # not the container's: the kubelet says that there is no log (any more)
            at_ns = nanoseconds(line[0])
            if known[line]:
                known[line] -= 1
            elif self._has_beginning or at_ns >= self._first_ns:
                self._remember(line, at_ns)
                yield line[1]

    def _remember(self, line: tuple[str, str], at_ns: int) -> None:
        self._first_ns = self._first_ns if self._lines else at_ns
        self._lines[line] += 1
        if at_ns > self._last_ns:
            is_new_second = at_ns // _SECOND_NS > self._last_ns // _SECOND_NS
            self._last_ns = at_ns
            if is_new_second:
                horizon = at_ns - 2 * _OVERLAP_S * _SECOND_NS
                kept = {one: n for one, n in self._lines.items() if nanoseconds(one[0]) >= horizon}
                self._lines = Counter(kept)


class LogFollower:
    """Follows the newest pod with the speaker's labels, until told that the job has ended.

    Args:
        api: When its owner closes it, ``follow`` ends.
        labels: Of the pod.
        uid: Of the job.
        container: Whose log.
        tail: Lines of what the pod said before; None: all.
        on_line: Called with every line, by ``follow``.
    """

    def __init__(
        self,
        api: Api,
        labels: Mapping[str, str],
        *,
        uid: str,
        container: str,
        tail: int | None,
        on_line: Callable[[str], None],
    ) -> None:
        self._api = api
        self._labels = labels
        self._uid = uid
        self._container = container
        self._tail = tail
        self._on_line = on_line
        self._has_job_ended = threading.Event()
        self._finished: set[str] = set()  # uids of pods that say nothing more
        self._read: dict[str, tuple[int, bool]] = {}  # uid -> restarts, and whether read to the end
        self._seen = Seen(has_beginning=tail is None)
        self._patience = Patience(float("inf"), is_quiet=True)  # who watches the job says it

    def finish(self) -> None:
        """Read what is there yet, and end."""
        self._has_job_ended.set()

    def follow(self) -> None:
        """Pass on every line until ``finish`` or until the ``Api`` is closed.

        Raises:
            ClusterError: If the cluster refuses.
        """
        while not self._api.is_closed:
            # Looked at before the log is: what is read then is all there is.
            is_last = self._has_job_ended.is_set()
            pause_s = _LOOK_S
            try:
                for pod in self._pods():
                    self._follow(pod, may_wait=not is_last)
                self._patience.served()
                if is_last:
                    return
            except ClusterError as error:
                pause_s = self._patience.pause_after(error)
            if is_last:  # who waits for the last words closes the connection in the end
                time.sleep(min(pause_s, _LOOK_S))
            else:
                self._has_job_ended.wait(pause_s)

    def _pods(self) -> list[dict[str, Any]]:
        """Return the speaker's pods that may say something yet, the oldest first."""
        found = [
            pod
            for pod in self._api.list(POD, labels=self._labels)
            if pod["metadata"]["uid"] not in self._finished
            and self._uid in {one["uid"] for one in pod["metadata"].get("ownerReferences") or []}
        ]
        return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))

    def _follow(self, pod: Mapping[str, Any], *, may_wait: bool) -> None:
        """Pass on what the container says until this life of it ends or the connection does."""
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        status = _status(pod, self._container)
        state, restarts = status.get("state") or {}, int(status.get("restartCount", 0))
        is_running = "running" in state
        is_over = "terminated" in state or ("waiting" in state and restarts > 0)
        before, was_read = self._read.get(uid, (restarts, False))
        if restarts > before and not was_read:
            self._pass_on(name, follow=False, previous=True)
        if (is_running or is_over) and (restarts > before or not was_read):
            self._read[uid] = (restarts, False)
            is_there = self._pass_on(name, follow=is_running and may_wait)
            # Only what had ended before it was read is known to be read to its end.
            self._read[uid] = (restarts, is_there and is_over)
        if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
            self._finished.add(uid)

    def _pass_on(self, pod: str, *, follow: bool, previous: bool = False) -> bool:
        """Pass on what is new in one log; return whether there is one."""
        since, tail = self._seen.since_time, self._tail
        lines = self._api.log(
            pod,
            self._container,
            since_time=since,
            tail=tail if since is None else None,
            previous=previous,
            follow=follow,
        )
        try:
            for text in self._seen.fresh(lines):
                self._on_line(text)
        except (NotReadyError, MissingError):
            return False
        return True


def _status(pod: Mapping[str, Any], container: str) -> dict[str, Any]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    found = [one for one in statuses if one["name"] == container]
    return dict(found[0]) if found else {}
