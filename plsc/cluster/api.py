"""Objects of a cluster as plain dictionaries: get, create, apply, delete, list, watch, log."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from plsc.cluster.connection import Connection, find_connection
from plsc.cluster.kinds import POD, Kind
from plsc.cluster.log_times import time_and_text
from plsc.cluster.patience import Patience
from plsc.cluster.refusals import ConflictError, MissingError
from plsc.cluster.requests import Request, Requests
from plsc.cluster.watching import watch

__all__ = ["Api", "ConflictError"]

_PATIENCE_S = 300.0
_SILENCE_S = 120.0


class Api:
    """The objects of one namespace.

    Every method tries again while the API server is away or busy: for ``patience_s`` seconds in
    all, then it raises ``AwayError``. Safe for threads.

    Attributes:
        namespace: In which everything happens.
    """

    def __init__(self, connection: Connection, *, patience_s: float = _PATIENCE_S) -> None:
        self._connection = connection
        self._patience_s = patience_s
        self._requests = Requests(connection)
        self.namespace = connection.namespace
        self._served: set[tuple[str, str]] = set()  # what was granted: method, kind

    @classmethod
    def connect(cls) -> "Api":
        """Return the cluster of this pod's service account, else of the kubeconfig.

        Raises:
            ClusterError: If there is neither.
        """
        return cls(find_connection())

    def twin(self, *, patience_s: float = _PATIENCE_S) -> "Api":
        """Return the same with connections of its own, to be closed on its own."""
        return Api(self._connection, patience_s=patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._requests.closed.is_set()

    def close(self) -> None:
        """End every watch and log, also those that other threads read, and all connections."""
        self._requests.close()

    def get(self, kind: Kind, name: str, *, timeout_s: float = 30.0) -> dict[str, Any] | None:
        """Return an object, or None where there is none of the name.

        Raises:
            ClusterError: Refused, or away for too long.
        """
        try:
            found: dict[str, Any] = self._send("GET", kind, name, "get", timeout_s=timeout_s)
        except MissingError:
            return None
        return found

    def create(self, kind: Kind, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object and return it as the server has it.

        Raises:
            ConflictError: If one of the name is there, perhaps by a try of ours whose answer got
                lost.
            ClusterError: Refused, or away for too long.
        """
        name = str(manifest["metadata"].get("name", ""))
        made: dict[str, Any] = self._send(
            "POST", kind, "", f"create {kind.plural} {name}".strip(), body=manifest
        )
        return made

    def apply(self, kind: Kind, manifest: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
        """Apply a manifest on the server's side, without force, and return the object.

        Args:
            kind: Of the object.
            manifest: Only the fields that are meant.
            manager: Who owns these fields from now on.

        Raises:
            ConflictError: If another manager owns one of the fields; nothing has changed.
            ClusterError: Refused, or away for too long.
        """
        applied: dict[str, Any] = self._send(
            "PATCH",
            kind,
            manifest["metadata"]["name"],
            "apply",
            query={"fieldManager": manager, "force": "false"},
            body=manifest,
            content_type="application/apply-patch+yaml",
        )
        return applied

    def delete(
        self, kind: Kind, name: str, *, uid: str | None = None, timeout_s: float = 30.0
    ) -> bool:
        """Delete an object; what it owns goes after it, in the background.

        Args:
            kind: Of the object.
            name: Of the object.
            uid: Delete only the object that has it.
            timeout_s: Longest silence of the server, in seconds.

        Returns:
            Whether it was there.

        Raises:
            ConflictError: If the object of the name has another uid.
            ClusterError: Refused, or away for too long.
        """
        options: dict[str, Any] = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
        }
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self._send("DELETE", kind, name, "delete", body=options, timeout_s=timeout_s)
        except MissingError:
            return False
        return True

    def list(
        self,
        kind: Kind,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the objects that have these labels and these values of fields.

        Raises:
            ClusterError: Refused, or away for too long.
        """
        query = selection(labels or {}, fields or {})
        answer = self._send("GET", kind, "", f"list {kind.plural}", query=query)
        # The items of a list lack what every manifest has; put it back.
        of = {"apiVersion": kind.api_version, "kind": kind.name}
        return [of | item for item in answer.get("items") or []]

    def watch(self, kind: Kind, name: str) -> Iterator[dict[str, Any] | None]:
        """Yield an object as it is, then after every change; None when there is none (any more).

        Goes on for as long as it is read: a server that is away is waited for without end. A change
        that others soon follow may be missed, the last one never. Ends when the ``Api`` is closed.

        Raises:
            ClusterError: Refused.
        """
        what = f"watch {kind.plural} {name} in namespace {self.namespace}"
        path = kind.path(self.namespace)
        return watch(self._requests, path, what, selection({}, {"metadata.name": name}))

    def log(
        self,
        pod: str,
        container: str,
        *,
        since_time: str | None = None,
        tail: int | None = None,
        previous: bool = False,
        follow: bool = False,
    ) -> Iterator[tuple[str, str]]:
        """Yield the lines of a container's log, each with its time (RFC 3339, nanoseconds).

        What the kubelet says itself, where it has lost the log, has an empty time.

        The connection is tried once: who follows a log goes on by ``since_time``
        (``plsc.cluster.log_following``).

        Args:
            pod: Name of the pod.
            container: Name of the container.
            since_time: Only lines of this second and later.
            tail: Only the last lines.
            previous: Of the container before its last restart.
            follow: Go on until the container ends. A last line without its end is then left out,
                for a connection may have broken in it.

        Raises:
            NotReadyError: If the container has not started, or has no former self.
            MissingError: If there is no such pod.
            ClusterError: Refused; ``AwayError`` when the connection breaks.
        """
        query = {"container": container, "timestamps": "true"}
        query |= {"sinceTime": since_time} if since_time else {}
        query |= {"tailLines": str(tail)} if tail is not None else {}
        query |= {"previous": "true"} if previous else {}
        query |= {"follow": "true"} if follow else {}
        request = Request(
            "GET",
            POD.path(self.namespace, pod) + "/log",
            f"get pods/log {pod}, container {container}, in namespace {self.namespace}",
            query,
            timeout_s=_SILENCE_S if follow else 30.0,
        )
        for line, is_whole in self._requests.stream(request):
            if is_whole or not follow:
                yield time_and_text(line.decode("utf-8", "replace"))

    def _send(
        self,
        method: str,
        kind: Kind,
        name: str,
        verb: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        timeout_s: float = 30.0,
    ) -> Any:
        asked = f"{verb} {kind.plural} {name}" if name else verb
        request = Request(
            method,
            kind.path(self.namespace, name),
            f"{asked} in namespace {self.namespace}",
            query or {},
            body,
            content_type,
            timeout_s,
        )
        right = method, kind.plural
        was_served = right in self._served
        patience = Patience(self._patience_s, self._requests.closed, was_served=was_served)
        answer = patience.persist(lambda: self._requests.send(request))
        self._served.add(right)
        return answer


def selection(labels: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """Return the query that selects objects by labels and by fields."""
    given = {"labelSelector": labels, "fieldSelector": fields}
    return {
        key: ",".join(f"{name}={value}" for name, value in one.items())
        for key, one in given.items()
        if one
    }
