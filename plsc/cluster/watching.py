"""Watching one object: its state now, then every change, over connections that come and go."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from plsc.cluster.patience import Patience
from plsc.cluster.refusals import AwayError, GoneError, refusal
from plsc.cluster.requests import Request, Requests
from plsc.errors import ClusterError

__all__ = ["watch"]

_STREAM_S = 60  # a connection that died without a word goes unnoticed for no longer
_PAUSE_S = 0.2  # between streams: a server that ends each at once is not to be flooded
_FOREVER_S = float("inf")


def watch(
    requests: Requests, path: str, what: str, query: Mapping[str, str]
) -> Iterator[dict[str, Any] | None]:
    """Yield the object that ``query`` selects, now and after every change; None: there is none.

    Args:
        requests: To the API server; closing them ends the watch.
        path: Of the collection.
        what: In words, for errors.
        query: Selects one object by its name.

    Raises:
        ClusterError: Refused.
    """
    patience = Patience(_FOREVER_S, requests.closed)
    version = ""  # where the next stream begins; empty: list first
    while not requests.closed.is_set():
        try:
            if not version:
                answer = requests.send(Request("GET", path, what, query))
                patience.served()
                version = answer["metadata"]["resourceVersion"]
                yield next(iter(answer["items"]), None)
            for event in _events(requests, path, what, query, version):
                patience.served()
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    yield None if event["type"] == "DELETED" else event["object"]
            requests.closed.wait(_PAUSE_S)
        except GoneError:
            version = ""
        except ClusterError as error:
            if requests.closed.is_set():
                return
            patience.endure(error)


def _events(
    requests: Requests, path: str, what: str, query: Mapping[str, str], version: str
) -> Iterator[dict[str, Any]]:
    more = {
        "watch": "true",
        "resourceVersion": version,
        "allowWatchBookmarks": "true",
        "timeoutSeconds": str(_STREAM_S),
    }
    request = Request("GET", path, what, {**query, **more}, timeout_s=_STREAM_S + 15.0)
    for line, is_whole in requests.stream(request):
        if not line.strip():
            continue
        if not is_whole:
            raise AwayError(f"{what}: the stream ended within an event")
        event = json.loads(line)
        if event["type"] == "ERROR":
            status = event["object"]
            message = status.get("message", "no reason given")
            raise refusal(status.get("code", 500), message, what=what, account="the account")
        yield event
