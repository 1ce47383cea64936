"""The side of ``tests.kubernetes_api`` that tests move: pods and their logs, conditions, events."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from tests.kubernetes_store import Refused, Store, now, selects


class _Log:
    """What one life of a container has said."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.is_over = False


class Pods:
    """Moves objects as controllers and kubelets would.

    Attributes:
        store: The objects.
        generation: Streams that were opened in a former one break.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.generation = 0
        self.is_stopped = False
        self._logs: dict[tuple[str, str], list[_Log]] = {}

    def put(self, plural: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Make an object without a request."""
        return self.store.create(plural, manifest)

    def update(
        self, plural: str, name: str, change: Callable[[dict[str, Any]], object]
    ) -> dict[str, Any]:
        """Let ``change`` alter an object in place."""
        with self.store.changed:
            found = self.store.get(plural, name)
            found.setdefault("status", {})
            change(found)
            return self.store.replace(plural, found)

    def until(self, is_so: Callable[[], Any], timeout_s: float = 10.0) -> Any:
        """Wait until ``is_so`` returns something true, and return that."""
        end = time.monotonic() + timeout_s
        while not (found := is_so()):
            assert time.monotonic() < end, f"not so after {timeout_s} s"
            time.sleep(0.01)
        return found

    def one(self, plural: str) -> dict[str, Any]:
        """Wait for the only object of a resource, and return it."""
        found: list[dict[str, Any]] = self.until(lambda: self.store.find(plural))
        (it,) = found
        return it

    def condition(
        self, plural: str, name: str, kind: str, status: str = "True", **more: str
    ) -> None:
        """Set a condition: ``condition("jobs", name, "Failed", reason="BackoffLimitExceeded")``."""

        def change(thing: dict[str, Any]) -> None:
            conditions = thing["status"].setdefault("conditions", [])
            conditions[:] = [one for one in conditions if one["type"] != kind]
            conditions.append({"type": kind, "status": status, **more})

        self.update(plural, name, change)

    def event(self, about: str, reason: str, message: str, kind: str = "Warning") -> None:
        """Note something about an object."""
        manifest = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{about}."},
            "involvedObject": {"name": about},
            "reason": reason,
            "message": message,
            "type": kind,
            "lastTimestamp": now(),
        }
        self.store.create("events", manifest)

    def pod(
        self,
        name: str,
        job: dict[str, Any] | None = None,
        labels: dict[str, str] | None = None,
        container: str = "pytorch",
        **status: Any,
    ) -> dict[str, Any]:
        """Make a Pending pod, of a Job or PyTorchJob if one is given, as its controller would.

        Args:
            name: Of the pod.
            job: Its owner, and the source of its labels.
            labels: More of them: ``{"training.kubeflow.org/replica-type": "master"}``.
            container: Name of its container.
            status: Fields of its status, besides the phase.
        """
        metadata: dict[str, Any] = {"name": name, "labels": {}}
        spec: dict[str, Any] = {"containers": [{"name": container, "image": "worker:1"}]}
        if job is not None:
            owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "controller": True}
            owner |= {key: job["metadata"][key] for key in ("name", "uid")}
            metadata["ownerReferences"] = [owner]
            key = "job-name" if job["kind"] == "Job" else "training.kubeflow.org/job-name"
            template = job["spec"].get("template")
            if template is None:
                template = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
            own = (template.get("metadata") or {}).get("labels") or {}
            metadata["labels"] = {**own, key: job["metadata"]["name"]}
            spec = copy.deepcopy(template["spec"])
        metadata["labels"] |= labels or {}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        return self.store.create("pods", manifest | {"status": {"phase": "Pending", **status}})

    def run_pod(self, name: str, container: str = "") -> None:
        """Start a pod's container, or start it again."""

        def change(pod: dict[str, Any]) -> None:
            status = self._container(pod, container)
            key = (name, status["name"])
            lives = self._logs.setdefault(key, [])
            if "terminated" in status.get("state", {}):
                status["lastState"] = status["state"]
                status["restartCount"] += 1
            status["state"] = {"running": {"startedAt": now()}}
            lives.append(_Log())
            pod["status"]["phase"] = "Running"

        self.update("pods", name, change)

    def wait_pod(self, name: str, reason: str, message: str = "", container: str = "") -> None:
        """Let a container wait: ``ImagePullBackOff``."""

        def change(pod: dict[str, Any]) -> None:
            waiting = {"reason": reason, "message": message}
            self._container(pod, container)["state"] = {"waiting": waiting}

        self.update("pods", name, change)

    def unschedulable(self, name: str, message: str) -> None:
        """Let a pod find no node."""
        more = {"reason": "Unschedulable", "message": message}
        self.condition("pods", name, "PodScheduled", "False", **more)

    def say(self, name: str, *lines: str, container: str = "", at_ns: int | None = None) -> None:
        """Let a pod's container say something, now or at another time; 0: without a time."""
        with self.store.changed:
            pod = self.store.get("pods", name)
            life = self._logs[name, self._container(pod, container)["name"]][-1]
            for line in lines:
                life.lines.append((time.time_ns() if at_ns is None else at_ns, line))
            self.store.changed.notify_all()

    def end_pod(
        self,
        name: str,
        exit_code: int = 0,
        reason: str = "",
        *,
        container: str = "",
        message: str = "",
        restarts: bool = False,
    ) -> None:
        """End a pod's container; the pod with it, unless the container is to be started again."""

        def change(pod: dict[str, Any]) -> None:
            status = self._container(pod, container)
            status["state"] = {
                "terminated": {
                    "exitCode": exit_code,
                    "reason": reason or ("Error" if exit_code else "Completed"),
                    "message": message,
                    "finishedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                }
            }
            for life in self._logs.get((name, status["name"]), []):
                life.is_over = True
            if not restarts:
                pod["status"]["phase"] = "Failed" if exit_code else "Succeeded"

        self.update("pods", name, change)

    def evict(self, name: str, message: str = "The node was low on resource: memory.") -> None:
        """End a pod as its node does when it runs short."""
        self.end_pod(name, 137)
        self.update(
            "pods", name, lambda pod: pod["status"].update(reason="Evicted", message=message)
        )
        self.condition("pods", name, "DisruptionTarget", reason="TerminationByKubelet")

    def remove_pod(self, name: str) -> None:
        """Delete a pod, and its logs."""
        with self.store.changed:
            for (pod, _), lives in self._logs.items():
                if pod == name:
                    lives[-1].is_over = True
            self.store.delete("pods", name)
            self._logs = {key: one for key, one in self._logs.items() if key[0] != name}

    @staticmethod
    def _container(pod: dict[str, Any], name: str) -> dict[str, Any]:
        statuses = pod.setdefault("status", {}).setdefault("containerStatuses", [])
        spec = next(one for one in pod["spec"]["containers"] if name in {"", one["name"]})
        found = [one for one in statuses if one["name"] == spec["name"]]
        if not found:
            found = [{"name": spec["name"], "image": spec.get("image", ""), "restartCount": 0}]
            statuses += found
        it: dict[str, Any] = found[0]
        return it

    # What the server asks.

    def log_lines(self, name: str, query: dict[str, str]) -> Iterator[bytes]:
        """Yield a log as the server sends it; empty bytes: nothing yet."""
        life = self._life(name, query)
        since = query.get("sinceTime", "")
        sent = 0
        generation = self.generation
        with self.store.changed:
            if "tailLines" in query:
                sent = max(0, len(life.lines) - int(query["tailLines"]))
        while True:
            with self.store.changed:
                if self.generation != generation or self.is_stopped:
                    raise OSError("broken on purpose")
                fresh, is_over = life.lines[sent:], life.is_over
            sent += len(fresh)
            for at_ns, line in fresh:
                time_ = f"{_rfc3339(at_ns)} " if at_ns else ""
                if not time_ or time_[:19] >= since[:19]:
                    yield f"{time_}{line}\n".encode()
            is_gone = not self.store.find("pods", fields=f"metadata.name={name}")
            if is_over or is_gone or query.get("follow") != "true":
                return
            with self.store.changed:
                if len(life.lines) == sent and not life.is_over:
                    self.store.changed.wait(0.5)
            yield b""

    def _life(self, name: str, query: dict[str, str]) -> _Log:
        pod = self.store.get("pods", name)
        container = self._container(pod, query.get("container", ""))
        lives = self._logs.get((name, container["name"]), [])
        which = f'container "{container["name"]}" in pod "{name}"'
        if query.get("previous") == "true":
            if len(lives) < 2:
                raise Refused(400, "BadRequest", f"previous terminated {which} not found")
            return lives[-2]
        if not lives:
            reason = (
                container.get("state", {}).get("waiting", {}).get("reason", "ContainerCreating")
            )
            raise Refused(400, "BadRequest", f"{which} is waiting to start: {reason}")
        return lives[-1]

    def watch_lines(
        self, plural: str, selectors: tuple[str, str], version: int, seconds: float
    ) -> Iterator[bytes]:
        """Yield the events after ``version`` as the server sends them; empty bytes: none yet."""
        end, generation = time.monotonic() + seconds, self.generation
        self.store.since(version, plural)  # 410 before anything is sent
        while time.monotonic() < end:
            with self.store.changed:
                if self.generation != generation or self.is_stopped:
                    raise OSError("broken on purpose")
                try:
                    events = self.store.since(version, plural)
                except Refused as gone:
                    status = {"kind": "Status", "code": gone.code, "message": gone.message}
                    yield _line({"type": "ERROR", "object": status})
                    return
                if not events:
                    self.store.changed.wait(0.2)
            for event in events:
                version = event.version
                if selects(event.object, *selectors):
                    yield _line({"type": event.type, "object": event.object})
            yield b""


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"


def _rfc3339(at_ns: int) -> str:
    seconds, rest = divmod(at_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{rest:09d}Z"
