"""Where this process runs: its pod, and the Argo Workflow (a run of the pipeline) that it is of."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plsc.cluster.api import Api
from plsc.cluster.kinds import POD, WORKFLOW

__all__ = ["Place"]


@dataclass(frozen=True)
class Place:
    """A pod, or a person's machine.

    Attributes:
        pod: Name of this process's pod; empty outside of the cluster.
        namespace: In which it runs, and makes its jobs.
        owner: Reference to the pod's Workflow, for what is made here: it goes when the Workflow
            goes. None outside of a run. Not the pod, since Argo makes a new one for every try.
    """

    pod: str
    namespace: str
    owner: dict[str, Any] | None = None

    @classmethod
    def here(cls, api: Api) -> "Place":
        """Return the place of this process.

        Raises:
            ClusterError: If the cluster refuses, or is away for too long.
        """
        name = os.environ.get("KFP_POD_NAME") or os.environ.get("HOSTNAME", "")
        pod = api.get(POD, name) if name else None
        if pod is None:
            return cls("", api.namespace)
        return cls(name, api.namespace, _workflow(pod["metadata"]))

    def is_being_terminated(self, api: Api, *, timeout_s: float = 30.0) -> bool:
        """Return whether the whole run is to end, not just this process; one GET.

        KFP's Terminate gives the Workflow a deadline of 0 s; ``argo stop`` and ``argo terminate``
        set ``shutdown``; a Workflow that is gone takes everything with it.

        Raises:
            ClusterError: If the cluster refuses, or is away for too long.
        """
        if self.owner is None:
            return False
        workflow = api.get(WORKFLOW, self.owner["name"], timeout_s=timeout_s)
        if workflow is None:
            return True
        spec, metadata = workflow.get("spec") or {}, workflow["metadata"]
        is_another = metadata["uid"] != self.owner["uid"] or "deletionTimestamp" in metadata
        return is_another or spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown"))


def _workflow(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the reference to the pod's Workflow, without what only its controller may claim."""
    for reference in metadata.get("ownerReferences") or []:
        if reference["kind"] == WORKFLOW.name:
            known = {key: reference[key] for key in ("apiVersion", "kind", "name", "uid")}
            return known | {"blockOwnerDeletion": False}
    return None
