"""A job that a step wants done: its manifest, the name that follows from it, and its labels."""

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plsc.cluster.kinds import PYTORCHJOB, Kind
from plsc.cluster.place import Place
from plsc.conf.schema import PodsConfig

__all__ = ["SPEC_HASH", "JobRequest", "label_value"]

SPEC_HASH = "plsc/spec-hash"
"""Annotation: a job that has the same one does the same."""

_QUEUE = "kueue.x-k8s.io/queue-name"
_LABEL_LENGTH = 63


@dataclass(frozen=True)
class JobRequest:
    """What ``plsc.cluster.jobs.run_to_end`` makes, adopts, follows and explains.

    Attributes:
        kind: ``JOB`` or ``PYTORCHJOB``.
        manifest: The object; name, owner and labels are added.
        step: ``train``; the settings of the pods are ``<step>.pods``.
        part: What of the step: ``map``; empty: all of it.
        run_id: The pipeline run.
        pods: The step's settings of pods.
        container: Name of the container that does the work.
        speaker: Labels of the pod whose log is passed on; empty: none.
        report_uri: Where the whole story of a failed job goes.
    """

    kind: Kind
    manifest: Mapping[str, Any]
    step: str
    part: str
    run_id: str
    pods: PodsConfig
    container: str
    speaker: Mapping[str, str]
    report_uri: str

    @property
    def spec_hash(self) -> str:
        """Equal for two requests exactly when their jobs do the same for the same run."""
        metadata = self.manifest.get("metadata") or {}
        said = {
            "kind": self.kind.name,
            "spec": self.manifest["spec"],
            "labels": metadata.get("labels"),
            "annotations": metadata.get("annotations"),
            "of": [self.step, self.part, self.run_id, self.pods.queue],
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def name(self) -> str:
        """``plsc-<step>[-<part>]-<run>-<hash>``: the same for every try, at most 48 letters long.

        The operators add to it (``-worker-12``), and 63 letters are all that a pod may have.
        """
        run = re.sub(r"[^a-z0-9]", "", self.run_id.lower())[:8]
        parts = ["plsc", self.step, self.part, run, self.spec_hash[:6]]
        return "-".join(re.sub(r"[^a-z0-9-]", "", part.lower()) for part in parts if part)

    @property
    def labels(self) -> dict[str, str]:
        """Labels that the job has and all that do the same part of the same run."""
        labels = {
            "app.kubernetes.io/part-of": "plsc",
            "plsc/run-id": label_value(self.run_id),
            "plsc/step": self.step,
        }
        return labels | ({"plsc/part": self.part} if self.part else {})

    @property
    def pod_labels(self) -> dict[str, str]:
        """Labels by which the pods of this job are found, whoever made them."""
        key = "training.kubeflow.org/job-name" if self.kind == PYTORCHJOB else "job-name"
        return {key: self.name}

    @property
    def num_pods(self) -> int:
        """Pods that the job has at a time."""
        spec = self.manifest["spec"]
        if self.kind == PYTORCHJOB:
            replicas = spec["pytorchReplicaSpecs"].values()
            return sum(int(one.get("replicas", 1)) for one in replicas)
        return int(spec.get("parallelism", 1))

    @property
    def title(self) -> str:
        """The job in words."""
        return f"{self.kind.name} {self.name}"

    def object(self, place: Place) -> dict[str, Any]:
        """Return the whole manifest, for a job made at ``place``."""
        made = copy.deepcopy(dict(self.manifest))
        metadata = made.get("metadata") or {}
        queue = {_QUEUE: self.pods.queue} if self.pods.queue else {}
        made |= {"apiVersion": self.kind.api_version, "kind": self.kind.name}
        made["metadata"] = {
            "name": self.name,
            "namespace": place.namespace,
            "labels": {**(metadata.get("labels") or {}), **self.labels, **queue},
            "annotations": {**(metadata.get("annotations") or {}), SPEC_HASH: self.spec_hash},
            "ownerReferences": [place.owner] if place.owner else [],
        }
        for template in _pod_templates(made["spec"]):
            own = template.setdefault("metadata", {})
            own["labels"] = {**(own.get("labels") or {}), **self.labels}
        return made


def label_value(text: str) -> str:
    """Return ``text`` as the value of a label: itself where it may be one, else with a digest."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]", "-", text).strip("-._")
    if cleaned == text and len(text) <= _LABEL_LENGTH:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{cleaned[: _LABEL_LENGTH - 9]}-{digest}".lstrip("-._")


def _pod_templates(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if "template" in spec:
        yield spec["template"]
    for replica in spec.get("pytorchReplicaSpecs", {}).values():
        yield replica["template"]
