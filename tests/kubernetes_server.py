"""The HTTP side of ``tests.kubernetes_api``: paths, verbs, streams, refusals and planned faults."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from tests.kubernetes_store import Refused, Store

_KINDS = {
    ("", "v1"): {
        "pods": "Pod", "services": "Service", "events": "Event", "secrets": "Secret",
        "configmaps": "ConfigMap",
    },
    ("apps", "v1"): {"deployments": "Deployment"},
    ("batch", "v1"): {"jobs": "Job"},
    ("kubeflow.org", "v1"): {"pytorchjobs": "PyTorchJob"},
    ("argoproj.io", "v1alpha1"): {"workflows": "Workflow"},
    ("coordination.k8s.io", "v1"): {"leases": "Lease"},
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """What a Role allows or not: ``Call("get", "", "pods", "log", "plsc-train-master-0")``."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    name: str = ""


@dataclass
class Fault:
    """What goes wrong with a request; see ``KubernetesApi.fail``."""

    status: int = 0
    verb: str = ""
    resource: str = ""
    name: str = ""
    times: int = 1
    after_lines: int | None = None
    delay_s: float = 0.0
    retry_after: str = ""
    message: str = "it is planned so"

    def fits(self, call: Call) -> bool:
        """Whether it happens to this call."""
        resource = f"{call.resource}/{call.subresource}" if call.subresource else call.resource
        asked = ((self.verb, call.verb), (self.resource, resource), (self.name, call.name))
        return self.times > 0 and all(want in {"", is_} for want, is_ in asked)


@dataclass(frozen=True)
class _Request:
    call: Call
    api_version: str
    query: dict[str, str]
    body: Any = field(hash=False, default=None)


class Cluster(Protocol):
    """What the server serves; ``tests.kubernetes_api.KubernetesApi``."""

    store: Store
    token: str
    calls: list[Call]
    controllers: dict[str, Callable[[dict[str, Any]], None]]
    missing: set[str]
    allows: Callable[[Call], bool]
    is_away: bool
    is_stopped: bool

    def fault_of(self, call: Call) -> Fault | None: ...

    def log_lines(self, name: str, query: dict[str, str]) -> Iterator[bytes]: ...

    def watch_lines(
        self, plural: str, selectors: tuple[str, str], version: int, seconds: float
    ) -> Iterator[bytes]: ...


class Server(ThreadingHTTPServer):
    """Serves a cluster on a free port of the loopback."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None:
        """Say nothing: tests break connections."""


class _Broken(Exception):
    """Break the connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PATCH = do_DELETE = do_PUT = do_GET

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        cluster = self.server.cluster
        try:
            if cluster.is_away or cluster.is_stopped:
                raise _Broken
            request = self._parsed(body)
            cluster.calls.append(request.call)
            fault = cluster.fault_of(request.call)
            self._check(request.call)
            if fault is not None:
                self._suffer(fault)
            self._serve(request, fault.after_lines if fault else None)
        except Refused as refused:
            self._send_refusal(refused)
        except (_Broken, OSError):
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(2)

    def _parsed(self, body: Any) -> _Request:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        root, *rest = parts.path.strip("/").split("/")
        group = rest.pop(0) if root == "apis" else ""
        version, _, namespace, plural, *more = rest
        if plural not in _KINDS.get((group, version), {}) or plural in self.server.cluster.missing:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        name, sub = (*more, "", "")[:2]
        if namespace != self.server.cluster.store.namespace:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        verbs = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
        reading = "get" if name else "watch" if query.get("watch") == "true" else "list"
        verb = verbs.get(self.command, reading)
        by_field = query.get("fieldSelector", "").removeprefix("metadata.name=")
        if by_field and "=" not in by_field and not name:
            name = by_field  # so does the server when it looks at Roles
        if verb == "create":
            name = (body or {}).get("metadata", {}).get("name", "")
        api_version = f"{group}/{version}" if group else version
        return _Request(Call(verb, group, plural, sub, name), api_version, query, body)

    def _check(self, call: Call) -> None:
        cluster = self.server.cluster
        if cluster.token and self.headers.get("Authorization") != f"Bearer {cluster.token}":
            raise Refused(401, "Unauthorized", "Unauthorized")
        self._authorize(call)

    def _authorize(self, call: Call) -> None:
        cluster = self.server.cluster
        if not cluster.allows(call):
            resource = f"{call.resource}/{call.subresource}".rstrip("/")
            raise Refused(
                403,
                "Forbidden",
                f'{call.resource} is forbidden: User "tester" cannot {call.verb} resource '
                f'"{resource}" in API group "{call.group}" in the namespace '
                f'"{cluster.store.namespace}"',
            )

    def _suffer(self, fault: Fault) -> None:
        time.sleep(fault.delay_s)
        if fault.status:
            refused = Refused(fault.status, "Planned", fault.message)
            refused.__dict__["retry_after"] = fault.retry_after
            raise refused
        if fault.after_lines is None and not fault.delay_s:
            raise _Broken

    def _serve(self, request: _Request, after_lines: int | None) -> None:
        cluster, call = self.server.cluster, request.call
        store = cluster.store
        if call.subresource == "log":
            self._stream(cluster.log_lines(call.name, request.query), after_lines)
        elif call.verb == "watch":
            self._stream(self._watch(request), after_lines)
        elif call.verb == "list":
            query = request.query
            selectors = query.get("labelSelector", ""), query.get("fieldSelector", "")
            with store.changed:
                version = str(store.version)
                items = store.find(call.resource, *selectors)
            self._send(200, {"metadata": {"resourceVersion": version}, "items": items})
        elif call.verb == "get":
            self._send(200, store.get(call.resource, call.name))
        elif call.verb == "create":
            self._send(201, self._created(request, request.body))
        elif call.verb == "delete":
            uid = ((request.body or {}).get("preconditions") or {}).get("uid", "")
            self._send(200, store.delete(call.resource, call.name, uid))
        else:
            self._apply(request)

    def _apply(self, request: _Request) -> None:
        cluster, call = self.server.cluster, request.call
        assert "apply-patch" in self.headers["Content-Type"], "only server-side apply is known here"
        self._validate(request)
        if not cluster.store.find(call.resource, fields=f"metadata.name={call.name}"):
            create = Call("create", call.group, call.resource, "", call.name)
            cluster.calls.append(create)  # the server asks the Role for both
            self._authorize(create)
        force = request.query.get("force") == "true"
        made, is_new = cluster.store.apply(
            call.resource, request.body, request.query["fieldManager"], force=force
        )
        self._send(201 if is_new else 200, made)
        self._tell_controller(call.resource, made)

    def _created(self, request: _Request, body: dict[str, Any]) -> dict[str, Any]:
        self._validate(request)
        made = self.server.cluster.store.create(request.call.resource, body)
        self._tell_controller(request.call.resource, made)
        return made

    def _validate(self, request: _Request) -> None:
        group, plural, body = request.call.group, request.call.resource, request.body
        version = request.api_version.rpartition("/")[2]
        kind = _KINDS[group, version][plural]
        if (body.get("apiVersion"), body.get("kind")) != (request.api_version, kind):
            raise Refused(400, "BadRequest", f"expected a {kind} of {request.api_version}")
        namespace = body["metadata"].get("namespace", self.server.cluster.store.namespace)
        if namespace != self.server.cluster.store.namespace:
            raise Refused(400, "BadRequest", "the namespace of the object is another one")

    def _tell_controller(self, resource: str, made: dict[str, Any]) -> None:
        controller = self.server.cluster.controllers.get(resource)
        if controller is not None:
            threading.Thread(target=controller, args=(made,), daemon=True).start()

    def _watch(self, request: _Request) -> Iterator[bytes]:
        query = request.query
        seconds = float(query.get("timeoutSeconds", "300"))
        selectors = query.get("labelSelector", ""), query.get("fieldSelector", "")
        version = int(query.get("resourceVersion") or 0)
        return self.server.cluster.watch_lines(request.call.resource, selectors, version, seconds)

    def _stream(self, lines: Iterator[bytes], after_lines: int | None) -> None:
        first = next(lines, None)  # a refusal comes before the headers
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        count = 0
        while first is not None:
            if first and count == after_lines:
                self._send_chunk(first[: len(first) // 2])
                raise _Broken
            if first:
                count += 1
                self._send_chunk(first)
            first = next(lines, None)
        self.wfile.write(b"0\r\n\r\n")

    def _send_chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def _send_refusal(self, refused: Refused) -> None:
        status = {
            "kind": "Status",
            "status": "Failure",
            "message": refused.message,
            "reason": refused.reason,
            "code": refused.code,
        }
        self._send(refused.code, status, getattr(refused, "retry_after", ""))

    def _send(self, status: int, document: Any, retry_after: str = "") -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)
