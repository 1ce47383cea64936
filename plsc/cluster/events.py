"""What the cluster noted about an object: its events, where this account may read them."""

import logging
from typing import Any

from plsc.cluster.api import Api
from plsc.cluster.kinds import EVENT
from plsc.cluster.refusals import AwayError, ForbiddenError

__all__ = ["Events", "told"]

log = logging.getLogger(__name__)

_HARMLESS = {"SetPodTemplateRestartPolicy"}  # the training operator's, about every job


class Events:
    """Reads events until it is told that it may not; then there are none."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._may = True

    def of(self, name: str) -> list[dict[str, Any]]:
        """Return the events of the object ``name``, the oldest first."""
        if not self._may:
            return []
        try:
            found = self._api.list(EVENT, fields={"involvedObject.name": name})
        except AwayError:
            return []
        except ForbiddenError as error:
            self._may = False
            log.warning("going on without events: %s", error)
            return []
        return sorted(found, key=when)

    def last_warning(self, name: str) -> str:
        """Return the last warning about an object, in one line; empty: there is none."""
        found = [
            told(event)
            for event in self.of(name)
            if event.get("type") == "Warning" and event.get("reason") not in _HARMLESS
        ]
        return found[-1] if found else ""


def when(event: dict[str, Any]) -> str:
    """Return when an event happened last; sorts as time does."""
    metadata = event.get("metadata") or {}
    found = event.get("lastTimestamp") or event.get("eventTime")
    return str(found or metadata.get("creationTimestamp") or "")


def told(event: dict[str, Any]) -> str:
    """Return an event in one line."""
    message = " ".join(str(event.get("message") or "").split())
    return f"{event.get('reason', '')}: {message}"
