"""A cluster on this machine, by kind: ``python -m pipelines.kind up``, ``images`` and ``down``.

``up`` may be run again: it makes what is missing and applies the rest anew. Where kind is not, any
cluster does: ``docs/cluster.md`` says what is done here, step by step.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from components.images import NAMES, ref
from images import build, engine

__all__ = ["main"]

KFP_VERSION = "2.17.0"
TRAINING_OPERATOR_VERSION = "v1.9.4"

_CLUSTER = "plsc"
_NAMESPACE = "kubeflow"
_KFP = "https://github.com/kubeflow/pipelines//manifests/kustomize"
_TRAINING_OPERATOR = "https://github.com/kubeflow/trainer//manifests/overlays/standalone"
_OVERLAY = Path(__file__).parents[1] / "manifests" / "overlays" / "kind"
_SECRET = "plsc-object-store"  # noqa: S105  its name
_AWAITED = (
    "workflow-controller",
    "ml-pipeline",
    "ml-pipeline-ui",
    "training-operator",
    "object-store",
)
_PATIENCE = "20m"  # KFP's images are pulled meanwhile

_HOW_TO_GO_ON = """
The cluster is up. Run the pipeline on it, and look at its page while it runs:

    KFP_HOST=kubectl make pipeline-run EXPERIMENT=tiny
    kubectl -n kubeflow port-forward service/ml-pipeline-ui 8080:80     # http://localhost:8080
"""


class MissingToolError(Exception):
    """A program that is needed is not on the PATH."""


class OtherNamesError(Exception):
    """The images are to be named otherwise than the manifests name them."""


class StepFailedError(Exception):
    """A command of kind, kubectl or docker failed; it has said why itself."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.kind", description=__doc__)
    commands = {"up": _up, "images": _load_images, "down": _down}
    parser.add_argument("command", choices=commands)
    command = parser.parse_args(arguments).command
    try:
        _refuse_other_names()
        _need("kind", *([] if command == "images" else ["kubectl"]))
        engine.ready()  # its DOCKER_HOST is kind's as well
        commands[command]()
    except (MissingToolError, OtherNamesError) as error:
        print(error, file=sys.stderr)
        return 2
    except (StepFailedError, engine.EngineError) as error:
        print(f"\nit failed at: {error}", file=sys.stderr)
        return 1
    return 0


def _up() -> None:
    build.build(list(NAMES))
    if _CLUSTER not in _output("kind", "get", "clusters").split():
        _run("kind", "create", "cluster", "--name", _CLUSTER, "--wait", "5m")
    _kubectl("apply", "-k", f"{_KFP}/cluster-scoped-resources?ref={KFP_VERSION}")
    _kubectl("wait", "--for=condition=established", "--timeout=2m", "crd", "--all")
    _kubectl("apply", "-k", f"{_KFP}/env/platform-agnostic?ref={KFP_VERSION}")
    operator = f"{_TRAINING_OPERATOR}?ref={TRAINING_OPERATOR_VERSION}"
    _kubectl("apply", "--server-side", "--force-conflicts", "-k", operator)
    _load_images()
    _make_secret()
    _kubectl("apply", "-k", str(_OVERLAY))
    for name in _AWAITED:
        wait = ["rollout", "status", f"deployment/{name}", f"--timeout={_PATIENCE}"]
        _kubectl("-n", _NAMESPACE, *wait)
    _kubectl(
        "-n", _NAMESPACE, "wait", "--for=condition=complete", "--timeout=30m", "job/sample-data"
    )
    print(_HOW_TO_GO_ON)


def _load_images() -> None:
    """Copy the images that ``make images`` built here into the node."""
    _run("kind", "load", "docker-image", "--name", _CLUSTER, *map(ref, NAMES))


def _down() -> None:
    _run("kind", "delete", "cluster", "--name", _CLUSTER)


def _make_secret() -> None:
    """Make the object store's keys, unless there are some: random, and seen by nobody."""
    found = _output(
        *_KUBECTL, "-n", _NAMESPACE, "get", "secret", "--ignore-not-found", "-o", "name", _SECRET
    )
    if found.strip():
        return
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _SECRET, "namespace": _NAMESPACE},
        "stringData": {
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
            "S3_ENDPOINT": "http://object-store:9000",
        },
    }
    _kubectl("create", "-f", "-", given=json.dumps(secret))


_KUBECTL = ("kubectl", "--context", f"kind-{_CLUSTER}")


def _kubectl(*arguments: str, given: str | None = None) -> None:
    _run(*_KUBECTL, *arguments, given=given)


def _refuse_other_names() -> None:
    given = [name for name in ("REGISTRY", "TAG") if os.environ.get(name)]
    if given:
        raise OtherNamesError(
            f"expected {' and '.join(given)} to be empty: the cluster that kind makes gets its"
            " images from here, under the names in manifests/overlays/kind"
        )


def _need(*programs: str) -> None:
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        raise MissingToolError(
            f"not on the PATH: {', '.join(missing)}. `make cluster-up` needs kind and "
            "kubectl; docs/cluster.md says where they come from, and how to do without kind"
        )


def _run(*command: str, given: str | None = None) -> None:
    print("+", " ".join(command), flush=True)
    ended = subprocess.run(command, input=given, text=True, check=False, env=_environment())
    if ended.returncode:
        raise StepFailedError(" ".join(command))


def _output(*command: str) -> str:
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, env=_environment()
    )
    if ended.returncode:
        raise StepFailedError(" ".join(command))
    return ended.stdout


def _environment() -> dict[str, str]:
    """Return our environment; kubectl needs no token of KFP's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KFP_TOKEN")}


if __name__ == "__main__":
    sys.exit(main())
