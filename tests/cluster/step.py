"""A step of the pipeline as Argo runs it: a pod of a Workflow, which can be made again."""

import time
from typing import Any

from tests.cluster.site import Site, forget, image, until

__all__ = ["Run", "Step"]

_HARDENED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class Run:
    """A run of the pipeline: a Workflow, and the names by which its steps know it."""

    def __init__(self, site: Site, run_id: str) -> None:
        self.site, self.run_id = site, run_id
        workflow = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": f"run-{run_id}"},
            "spec": {"suspend": True},
        }
        site.apply(workflow)
        found = site.get("workflow", f"run-{run_id}")
        assert found is not None
        self.owner = {
            "apiVersion": found["apiVersion"],
            "kind": found["kind"],
            "name": found["metadata"]["name"],
            "uid": found["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }

    def terminate(self) -> None:
        """Ask for the end of the run, as KFP's Terminate does."""
        patch = '{"spec": {"activeDeadlineSeconds": 0}}'
        self.site.kubectl(
            "patch", "workflow", self.owner["name"], "--type=merge", f"--patch={patch}"
        )

    def end(self) -> None:
        """Remove the run and, by ownership, all that its steps have made."""
        forget(self.site, f"workflow/{self.owner['name']}")


class Step:
    """One step of a run: a pod with the pipeline's account that makes one call into plsc."""

    def __init__(
        self, run: Run, stage: str, call: str, *, of: str = "", env: dict[str, str] | None = None
    ) -> None:
        self.run, self.site = run, run.site
        self.name = f"{run.run_id}-{stage}"
        worker = {"PLSC_WORKER_IMAGE": image(stage), "PLSC_TRITON_IMAGE": image("triton")}
        self._manifest = self._pod(image(of or stage), call, worker | (env or {}))

    def start(self) -> "Step":
        """Make the pod."""
        self.site.apply(self._manifest)
        return self

    def lose_pod(self, *, grace_s: int = 1) -> None:
        """Take the pod away, as a drained node or the end of a workflow does."""
        self.site.kubectl(
            "delete", "pod", self.name, f"--grace-period={grace_s}", timeout_s=60 + grace_s
        )

    def log(self) -> str:
        """Return what the step has said so far."""
        return self.site.kubectl("logs", self.name, check=False)

    def says(self, words: str, *, timeout_s: float) -> str:
        """Wait until the step has said ``words``; return all it has said."""

        def look() -> str:
            log = self.log()
            return log if words in log else ""

        try:
            return until(f"{self.name} says {words!r}", look, timeout_s=timeout_s)
        except TimeoutError as error:
            raise AssertionError(f"{error}; it said:\n{self.log()}") from None

    def ends(self, *, timeout_s: float) -> int:
        """Wait for the end and return the exit code."""

        def code() -> tuple[int] | None:
            pod = self.site.get("pod", self.name) or {"status": {}}
            for status in pod["status"].get("containerStatuses", []):
                if "terminated" in status["state"]:
                    return (int(status["state"]["terminated"]["exitCode"]),)
            return None

        return until(f"the end of {self.name}", code, timeout_s=timeout_s)[0]

    def succeeds(self, *, timeout_s: float) -> str:
        """Wait for the end, which must be a good one; return what the step said."""
        begin = time.monotonic()
        try:
            code: object = self.ends(timeout_s=timeout_s)
        except TimeoutError:
            code = f"none after {time.monotonic() - begin:.0f} s"
        log = self.log()
        assert code == 0, f"{self.name} ended with code {code}:\n{log}"
        return log

    def _pod(self, image_name: str, call: str, env: dict[str, str]) -> dict[str, Any]:
        container = {
            "name": "main",
            "image": image_name,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "-c", call],
            "env": [{"name": name, "value": value} for name, value in env.items()],
            "envFrom": [
                {"configMapRef": {"name": "plsc-settings"}},
                {"secretRef": {"name": "plsc-object-store"}},
            ],
            "securityContext": _HARDENED,
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "labels": {"workflows.argoproj.io/workflow": self.run.owner["name"]},
                "ownerReferences": [self.run.owner],
            },
            "spec": {
                "serviceAccountName": "plsc-pipeline",
                "restartPolicy": "Never",
                "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001},
                "containers": [container],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            },
        }
