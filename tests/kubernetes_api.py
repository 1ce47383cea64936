"""A small Kubernetes API server over HTTP on the loopback, for tests of what talks to one.

::

    with KubernetesApi() as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path)))
        cluster.fail(503, verb="list", resource="pods", times=2)
        cluster.put("pods", {...})
        ...
        assert Call("create", "batch", "jobs", "", "plsc-x") in cluster.calls

Objects, server-side apply and selectors are those of ``tests.kubernetes_store``; what makes pods of
jobs and ends them is up to the test (``controllers``, and the methods about pods).
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import yaml

from tests.kubernetes_pods import Pods
from tests.kubernetes_server import Call, Fault, Server
from tests.kubernetes_store import Store

__all__ = ["Call", "Fault", "KubernetesApi"]


class KubernetesApi(Pods):
    """Serves for the time of a ``with`` block.

    Attributes:
        store: The objects.
        calls: Every request that came, in order, also those that failed.
        controllers: Resource -> what is called, in a thread of its own, with every object of it
            that a client has created: plays the controller.
        missing: Resources that this cluster does not know: ``{"pytorchjobs"}``.
        allows: Whether a call is allowed; others are answered 403.
        is_away: Connections are closed without an answer.
    """

    def __init__(self, namespace: str = "plsc", token: str = "let-me-in") -> None:
        super().__init__(Store(namespace))
        self.token = token
        self.calls: list[Call] = []
        self.controllers: dict[str, Callable[[dict[str, Any]], None]] = {}
        self.missing: set[str] = set()
        self.allows: Callable[[Call], bool] = lambda _: True
        self.is_away = False
        self._faults: list[Fault] = []
        self._server = Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_stopped = True
        self.drop_streams()
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, folder: Path, token: str | None = None) -> Path:
        """Write a kubeconfig for this server into ``folder``."""
        user = {"token": self.token if token is None else token}
        context = {"cluster": "stub", "user": "tester", "namespace": self.store.namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stub",
            "clusters": [{"name": "stub", "cluster": {"server": self.url}}],
            "users": [{"name": "tester", "user": user}],
            "contexts": [{"name": "stub", "context": context}],
        }
        path = folder / "kubeconfig.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def fail(self, status: int = 0, **how: Any) -> Fault:
        """Plan a fault for the next requests that fit.

        Args:
            status: HTTP status; 0: the connection is closed without an answer, or, with
                ``after_lines``, in the middle of the line after so many of a watch or a log; or,
                with ``delay_s`` alone, the answer is only late.
            how: The other fields of ``Fault``.
        """
        fault = Fault(status, **how)
        self._faults.append(fault)
        return fault

    def forget(self) -> None:
        """Forget all changes so far: watches of older versions get 410, also those that run."""
        with self.store.changed:
            self.store.version += 1
            self.store.oldest = self.store.version
            self.store.changed.notify_all()

    def drop_streams(self) -> None:
        """Break every watch and log that is being read."""
        with self.store.changed:
            self.generation += 1
            self.store.changed.notify_all()

    def made(self, verb: str, resource: str, name: str = "") -> list[Call]:
        """Return the calls of a verb on a resource (``pods/log``)."""
        found = [
            one
            for one in self.calls
            if one.verb == verb
            and resource == one.resource + (f"/{one.subresource}" if one.subresource else "")
        ]
        return [one for one in found if name in {"", one.name}]

    def fault_of(self, call: Call) -> Fault | None:
        """Take the planned fault of a call, if there is one."""
        with self.store.changed:
            for fault in self._faults:
                if fault.fits(call):
                    fault.times -= 1
                    return fault
        return None
