"""A stand-in for KFP's API server: real HTTP on the loopback, its objects in memory.

A run goes through a script of moments, one for each time that it is asked for. Node by node they
look as KFP 2.17.0's do, which wraps every node of Argo's in one that may try it again.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

KINDS = {
    "pipelines": ("pipeline_id", "pipelines"),
    "versions": ("pipeline_version_id", "pipeline_versions"),
    "experiments": ("experiment_id", "experiments"),
    "runs": ("run_id", "runs"),
}
"""How a path ends -> the name of its objects' id, and of their list."""

T0 = "2026-11-23T02:00:"


def task(name: str, state: str | None, begin: int, end: int | None = None) -> list[dict]:
    """One of Argo's nodes as KFP tells it, and the attempt below it. Seconds after 02:00:00."""
    told = {
        "display_name": name,
        "start_time": f"{T0}{begin:02d}Z",
        "end_time": f"{T0}{end:02d}Z" if end is not None else "1970-01-01T00:00:00Z",
        **({"state": state} if state else {}),
    }
    return [told, {**told, "display_name": f"{name}(0)"}]


def step(name: str, state: str, begin: int, end: int | None = None, executor: str = "") -> list:
    """A step whose driver took two seconds."""
    return [
        *task(f"{name}-driver", "SUCCEEDED", begin, begin + 2),
        *task(name, state, begin + 2, end),
        *task("executor", executor or state, begin + 2, end),
    ]


def left_out(name: str) -> list[dict]:
    return [*task(f"{name}-driver", None, 9, 9)[:1], *task(name, None, 9, 9)[:1]]


ROOT = [*task("root-driver", "SUCCEEDED", 0, 1), *task("root", "RUNNING", 1), {"execution_id": "7"}]


def moment(state: str, *steps: list, history: tuple[str, ...] = ()) -> dict:
    return {
        "state": state,
        "state_history": [{"state": one} for one in (*history, state)],
        "created_at": f"{T0}00Z",
        "finished_at": f"{T0}59Z" if state in {"SUCCEEDED", "FAILED"} else "1970-01-01T00:00:00Z",
        "run_details": {"task_details": [*ROOT, *(each for found in steps for each in found)]},
    }


def workflow(step: str, *pods: tuple[str, str]) -> dict:
    """Argo's Workflow with the pods of one step: (phase, message) of each."""
    nodes = {"w-1": {"id": "w-1", "displayName": f"{step}(0)", "type": "DAG", "startedAt": "1"}}
    for number, (phase, message) in enumerate(pods):
        nodes[f"w-9{number}"] = {
            "id": f"w-9{number}",
            "displayName": f"executor({number})",
            "type": "Pod",
            "phase": phase,
            "message": message,
            "boundaryID": "w-1",
            "templateName": "system-container-impl",
            "startedAt": str(number + 2),
        }
    return {"metadata": {"name": "w", "namespace": "kubeflow"}, "status": {"nodes": nodes}}


@dataclass
class KfpApi:
    """What it holds, and what it was asked."""

    url: str = ""
    token: str = ""
    """The only one that is taken; empty: none is asked for."""
    moments: list[dict] = field(default_factory=list)
    after_termination: list[dict] = field(default_factory=list)
    workflow: dict | None = None
    logs: dict[str, str] = field(default_factory=dict)
    """Pod -> what it said."""
    faults: list[tuple[str, int]] = field(default_factory=list)
    """(part of a path, status): each is answered once. Status 0 cuts the connection."""
    objects: dict[str, dict[str, dict]] = field(
        default_factory=lambda: {kind: {} for kind in KINDS}
    )
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def count(self, method: str, path: str) -> int:
        return sum(1 for found in self.asked if found[0] == method and path in found[1])

    def fault(self, method: str, path: str) -> int | None:
        for number, (part, status) in enumerate(self.faults):
            if part in f"{method} {path}":
                del self.faults[number]
                return status
        return None

    def listed(self, kind: str, query: dict[str, list[str]]) -> list[dict]:
        (predicate,) = json.loads(query["filter"][0])["predicates"]
        assert predicate["key"] == "display_name"
        assert predicate["operation"] == 1
        wanted = predicate["stringValue"]
        return [each for each in self.objects[kind].values() if each["display_name"] == wanted]

    def add(self, kind: str, key: str, document: dict) -> dict:
        name = f"{kind[0]}{len(self.objects[kind]) + 1}"
        self.objects[kind][name] = {**document, key: name}
        return self.objects[kind][name]

    def run(self, run_id: str) -> dict:
        now = self.moments.pop(0) if len(self.moments) > 1 else self.moments[0]
        return {**self.objects["runs"][run_id], **now}

    def answer(self, method: str, path: str, query: dict, body: bytes) -> object:
        """Return what is answered: an object, text, or a status alone."""
        if path.endswith("/healthz"):
            return {"multi_user": False}
        if found := re.search(r"v2beta1/runs/([^/:]+)(:\w+)?$", path):
            return self._answer_run(*found.groups())
        if found := re.search(r"v1alpha1/runs/[^/]+/nodes/([^/]+)/log$", path):
            return self.logs.get(found[1], 500)
        if "/v1beta1/runs/" in path and self.workflow:
            return {"pipeline_runtime": {"workflow_manifest": json.dumps(self.workflow)}}
        return self._answer_about_objects(method, path, query, body)

    def _answer_about_objects(self, method: str, path: str, query: dict, body: bytes) -> object:
        name = path.rpartition("/")[2]
        if name == "upload_version":
            assert b"pipelineInfo" in body
            named = {"display_name": query["name"][0], "pipeline_id": query["pipelineid"][0]}
            return self.add("versions", "pipeline_version_id", named)
        if name not in KINDS:
            return 404
        key, listed = KINDS[name]
        if method == "POST":
            return self.add(name, key, json.loads(body))
        return {listed: self.listed(name, query)}

    def _answer_run(self, run_id: str, verb: str | None) -> object:
        if run_id not in self.objects["runs"]:
            return 404
        if verb == ":terminate":
            self.moments = list(self.after_termination)
        if verb:
            return {}
        return self.run(run_id)


@contextmanager
def serve(**given: object) -> Iterator[KfpApi]:
    """Give a running API."""
    api = KfpApi(**given)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            api.asked.append((self.command, self.path))
            api.tokens.add(self.headers.get("authorization", ""))
            status = api.fault(self.command, address.path)
            if api.token and self.headers.get("authorization") != f"Bearer {api.token}":
                status = 401
            if status == 0:
                self.close_connection = True
                self.connection.close()
                return
            answer = status or api.answer(self.command, address.path, parse_qs(address.query), body)
            status, text = 200, answer
            if isinstance(answer, int):
                status, text = answer, {"message": f"the stub says {answer}", "code": 2}
            raw = (text if isinstance(text, str) else json.dumps(text)).encode()
            self.send_response(status)
            kind = "text/plain" if isinstance(text, str) else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a connection that a fault has cut

    server = Server(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
