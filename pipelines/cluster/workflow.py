"""A run as Argo has it: the pods of each step, why one waits or has failed, and what they said.

KFP's present API does not tell these things; its page takes them from where this module does. They
are good to have: where they cannot be had, nothing is said about them.
"""

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from pipelines.cluster.connection import Connection

__all__ = ["Attempt", "Workflow"]

_WORKFLOW_BYTES = 64 << 20
_LOG_BYTES = 1 << 20


@dataclass(frozen=True)
class Attempt:
    """One pod of a step: a step that is tried again has several."""

    pod: str
    phase: str
    """Argo's: Pending, Running, Succeeded, Failed, Error."""
    message: str
    """Why it waits, or failed: ``OOMKilled (exit code 137)``; often empty."""


@dataclass(frozen=True)
class Workflow:
    """The pods of a run."""

    namespace: str
    attempts: dict[str, list[Attempt]]
    """Step -> its pods, oldest first."""

    @classmethod
    def read(cls, connection: Connection, run_id: str) -> "Workflow | None":
        """Return the run's workflow, or None if KFP does not tell it."""
        body = connection.read(f"/apis/v1beta1/runs/{run_id}", limit_bytes=_WORKFLOW_BYTES)
        try:
            detail = json.loads(body or b"")
            return cls.parse(json.loads(detail["pipeline_runtime"]["workflow_manifest"]))
        except (ValueError, KeyError, TypeError):
            return None

    @classmethod
    def parse(cls, manifest: dict[str, Any]) -> "Workflow":
        """Return what Argo's Workflow object tells of the pods."""
        nodes = (manifest.get("status") or {}).get("nodes") or {}
        attempts: dict[str, list[Attempt]] = {}
        for node in sorted(nodes.values(), key=lambda node: node.get("startedAt") or ""):
            above = (nodes.get(node.get("boundaryID", "")) or {}).get("displayName", "")
            step = re.sub(r"\(\d+\)$", "", above)  # train(0), train(1), ... are its attempts
            if node.get("type") == "Pod" and node.get("displayName", "").startswith("executor"):
                pod = _pod_name(manifest["metadata"]["name"], node)
                attempts.setdefault(step, []).append(
                    Attempt(pod, node.get("phase", ""), node.get("message", ""))
                )
        return cls(manifest["metadata"].get("namespace", ""), attempts)

    def last(self, step: str) -> Attempt | None:
        """Return the newest pod of ``step``."""
        return (self.attempts.get(step) or [None])[-1]

    def log(self, connection: Connection, run_id: str, pod: str) -> str:
        """Return the end of what the step said in ``pod``; empty if it is gone."""
        where = {"podname": pod, "runid": run_id, "podnamespace": self.namespace}
        for path in (
            f"/apis/v1alpha1/runs/{run_id}/nodes/{quote(pod)}/log",
            f"/k8s/pod/logs?{urlencode(where)}",  # KFP's page, which does not pass the former on
        ):
            body = connection.read(path, limit_bytes=_LOG_BYTES)
            text = (body or b"").decode(errors="replace")
            if text and not re.match(r'\s*(<|\{"error)', text):
                return text
        return ""


def _pod_name(workflow: str, node: dict[str, Any]) -> str:
    """Return the name that Argo gives to the pod of a node."""
    return f"{workflow}-{node.get('templateName', '')}-{node['id'].rpartition('-')[2]}"
