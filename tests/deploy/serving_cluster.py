"""A stub cluster on which Triton's Deployment gets pods, which are servers of this machine."""

from typing import Any

from tests.kubernetes_api import KubernetesApi

LABELS = {"app.kubernetes.io/name": "triton"}


class ServingCluster(KubernetesApi):
    """Plays the Deployment's controller and the kubelet, as far as a test asks for it."""

    def deployment(self, *, wanted: int = 1, **status: int) -> None:
        """Put a Deployment there, with a status: ``available=1``."""
        manifest = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "triton"},
            "spec": {
                "replicas": wanted,
                "selector": {"matchLabels": LABELS},
                "template": {"metadata": {"labels": LABELS}, "spec": {"containers": []}},
            },
        }
        self.put("deployments", manifest)
        self.rolled(**status)

    def rolled(self, *, available: int = 0, updated: int = 0, replicas: int = 0) -> None:
        """Let the Deployment's controller say how far it is."""

        def change(deployment: dict[str, Any]) -> None:
            deployment["status"] = {
                "observedGeneration": deployment["metadata"]["generation"],
                "availableReplicas": available,
                "updatedReplicas": updated or available,
                "replicas": replicas or updated or available,
            }

        self.update("deployments", "triton", change)

    def serve(self, name: str, address: str = "127.0.0.1:9") -> dict[str, Any]:
        """Make a ready pod, whose Triton is at a gRPC address."""
        self.start(name, address)
        self.condition("pods", name, "Ready")
        return self.store.get("pods", name)

    def start(self, name: str, address: str = "127.0.0.1:9") -> None:
        """Make a pod that runs and is not ready yet."""
        self.make(name, address)
        self.run_pod(name)

    def make(self, name: str, address: str = "127.0.0.1:9") -> None:
        """Make a pod that does not run yet."""
        ip, _, port = address.rpartition(":")
        container = {
            "name": "triton",
            "image": "triton:1",
            "ports": [{"name": "grpc", "containerPort": int(port)}],
            "resources": {"limits": {"memory": "2Gi"}},
        }
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": dict(LABELS)},
            "spec": {"containers": [container]},
            "status": {"phase": "Pending", "podIP": ip},
        }
        self.put("pods", manifest)

    def begin_to_end(self, name: str) -> None:
        """Let a pod be about to go."""
        self.update(
            "pods",
            name,
            lambda pod: pod["metadata"].update(
                deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["test/kubelet"]
            ),
        )
