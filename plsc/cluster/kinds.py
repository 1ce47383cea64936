"""The kinds of Kubernetes objects that plsc touches, and where the API has them."""

from dataclasses import dataclass

__all__ = ["DEPLOYMENT", "EVENT", "JOB", "POD", "PYTORCHJOB", "SERVICE", "WORKFLOW", "Kind"]


@dataclass(frozen=True)
class Kind:
    """One kind of namespaced object.

    Attributes:
        api_version: As in a manifest: ``v1``, ``batch/v1``.
        name: As in a manifest: ``Job``.
        plural: As in a path and in a Role: ``jobs``.
    """

    api_version: str
    name: str
    plural: str

    @property
    def group(self) -> str:
        """The API group, as a Role names it; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str, name: str = "") -> str:
        """Return the path of the object ``name``, or of all objects, in ``namespace``."""
        root = "apis" if self.group else "api"
        path = f"/{root}/{self.api_version}/namespaces/{namespace}/{self.plural}"
        return f"{path}/{name}" if name else path


POD = Kind("v1", "Pod", "pods")
SERVICE = Kind("v1", "Service", "services")
EVENT = Kind("v1", "Event", "events")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
JOB = Kind("batch/v1", "Job", "jobs")
PYTORCHJOB = Kind("kubeflow.org/v1", "PyTorchJob", "pytorchjobs")
WORKFLOW = Kind("argoproj.io/v1alpha1", "Workflow", "workflows")
