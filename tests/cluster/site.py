"""A namespace on a real cluster with everything that the pipeline's steps find there."""

import json
import os
import secrets
import shlex
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml

__all__ = ["Site", "image", "until"]

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "manifests" / "overlays" / "kind"
WORKFLOW_CRD = Path(__file__).parent / "workflow-crd.yaml"
IMAGES = (
    "preprocess", "train-launch", "train", "evaluate", "export", "deploy", "triton", "object-store",
)  # fmt: skip
WITHOUT_GLYPHS = """\
apiVersion: batch/v1
kind: Job
metadata: {name: sample-data-glyphs}
$patch: delete
"""
_T = TypeVar("_T")


def image(name: str) -> str:
    """Return the image ``plsc-<name>``, in the registry and with the tag that are asked for."""
    registry, tag = os.environ.get("REGISTRY", ""), os.environ.get("TAG") or "0.1.0"
    return f"{registry.rstrip('/')}/" * bool(registry) + f"plsc-{name}:{tag}"


def until(what: str, look: Callable[[], _T], *, timeout_s: float, every_s: float = 0.5) -> _T:
    """Return what ``look`` gives as soon as it is true.

    Raises:
        TimeoutError: If it is not within the time; says what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)
    return found


class Site:
    """The namespace, and kubectl in it."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    @classmethod
    @contextmanager
    def made(cls) -> "Iterator[Site]":
        """Make the site, and remove it afterwards with all that is in it."""
        site = cls(f"plsc-test-{uuid.uuid4().hex[:6]}")
        site._load_images()
        with site._workflow_kind():
            site.kubectl("create", "namespace", site.namespace, is_global=True)
            try:
                site._furnish()
                yield site
            finally:
                if not os.environ.get("KEEP"):
                    command = ("delete", "namespace", site.namespace, "--wait=false")
                    site.kubectl(*command, is_global=True, check=False)

    def kubectl(
        self,
        *arguments: str,
        content: str = "",
        check: bool = True,
        is_global: bool = False,
        timeout_s: float = 120,
    ) -> str:
        """Run kubectl and return what it prints."""
        place = [] if is_global else ["--namespace", self.namespace]
        done = subprocess.run(
            ["kubectl", *place, *arguments],
            input=content or None,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        if check and done.returncode:
            raise RuntimeError(f"kubectl {shlex.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Create or change objects."""
        self.kubectl("apply", "-f", "-", content=yaml.safe_dump_all(manifests))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object, or None when there is none."""
        found = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(found) if found else None

    def find(self, kind: str, labels: str = "") -> list[dict[str, Any]]:
        """Return the objects with these labels."""
        selector = ("--selector", labels) if labels else ()
        items: list[dict[str, Any]] = json.loads(
            self.kubectl("get", kind, *selector, "-o", "json")
        )["items"]
        return items

    @contextmanager
    def forwarded(self, service: str, port: int) -> Iterator[str]:
        """Give an address on this machine that leads to a service's port while the block runs."""
        with subprocess.Popen(
            ["kubectl", "-n", self.namespace, "port-forward", f"service/{service}", f":{port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert "Forwarding from" in line, line
                yield line.split("Forwarding from ")[1].split(" -> ")[0]
            finally:
                process.terminate()

    def _load_images(self) -> None:
        """Bring the images to where the nodes find them; ``LOAD_IMAGES=true`` does nothing."""
        command = os.environ.get("LOAD_IMAGES") or "kind load docker-image --name plsc"
        subprocess.run([*shlex.split(command), *map(image, IMAGES)], check=True)

    @contextmanager
    def _workflow_kind(self) -> Iterator[None]:
        """Let there be Workflows: Argo's own kind, or one that stands in for it meanwhile."""
        name = "workflows.argoproj.io"
        if self.kubectl("get", "crd", name, "--ignore-not-found", is_global=True):
            yield
            return
        self.kubectl("apply", "-f", str(WORKFLOW_CRD), is_global=True)
        try:
            yield
        finally:
            self.kubectl("delete", "crd", name, "--wait=false", is_global=True, check=False)

    def _furnish(self) -> None:
        """Apply the kind overlay, and wait for the servers and the sample data."""
        key = {"AWS_ACCESS_KEY_ID": "plsc", "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(24)}
        key["S3_ENDPOINT"] = "http://object-store:9000"
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "plsc-object-store"},
                "stringData": key,
            }
        )
        self.kubectl("apply", "-f", "-", content=self._overlay(), timeout_s=60)
        self.kubectl("rollout", "status", "deployment/object-store", "--timeout=120s")
        self.kubectl(
            "wait", "--for=condition=complete", "job/sample-data", "--timeout=180s", timeout_s=200
        )

    def _overlay(self) -> str:
        """Return the kind overlay, rendered for this namespace and the images asked for."""
        with tempfile.TemporaryDirectory() as folder:
            images = [
                {"name": f"plsc-{name}", "newName": image(name).rpartition(":")[0],
                 "newTag": image(name).rpartition(":")[2]}
                for name in IMAGES
            ]  # fmt: skip
            where = os.path.relpath(OVERLAY, Path(folder).resolve())
            kustomization = {
                "resources": [where],
                "namespace": self.namespace,
                "images": images,
                "patches": [{"patch": WITHOUT_GLYPHS}],
            }
            (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
            return self.kubectl("kustomize", folder, is_global=True)


def forget(site: Site, *names: str) -> None:
    """Delete objects, ``kind/name`` each, that may be gone already."""
    with suppress(RuntimeError):
        site.kubectl("delete", "--ignore-not-found", "--grace-period=1", *names)
