"""Triton: the ``tritonserver`` of PyPI's nvidia-pytriton in its own environment, with our backend.

The environment (``.venv-triton``, made from ``images/triton/constraints.txt``) is apart because
nvidia-pytriton pins an old NumPy. The model repository is read from the object store, as on a
cluster.
"""

import os
import shutil
import subprocess
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path

from pipelines.services import object_store
from pipelines.services.process import Launch, ServicesError
from pipelines.services.state import State

__all__ = ["ENVIRONMENT_PATH", "NAME", "ROLES", "plan"]

NAME = "Triton"

ROLES = ("http", "grpc", "metrics")
"""What its ports are for."""

_ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT_PATH = _ROOT / ".venv-triton"
"""The server's own virtual environment."""

_FOLDER_MARK = "models/.keep"
"""Triton does not start on a repository without any object: "not a valid directory"."""

_BACKENDS_PATH = _ROOT / "images" / "triton" / "backends"


def plan(state_path: Path, state: State, ports: dict[str, int], s3_endpoint: str) -> Launch:
    """Return how to start Triton below ``state_path`` on the model repository in the bucket.

    Raises:
        ServicesError: If the server's environment is missing.
    """
    home = state_path / "triton"
    site = _site_packages()
    environment = _environment(state, site, home)

    def prepare() -> None:
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        object_store.put(
            state,
            s3_endpoint,
            _FOLDER_MARK,
            b"Triton's model repository; this object keeps the folder.\n",
        )
        _check_libraries(_assemble_backends(site, home / "backends"), environment)

    return Launch(
        name=NAME,
        command=_command(site, ports, f"s3://{s3_endpoint}/{object_store.BUCKET}/models"),
        environment=environment,
        ports=ports,
        working_path=home,
        log_path=home / "triton.log",
        prepare=prepare,
        is_ready=lambda: _is_ready(ports),
    )


def _site_packages() -> Path:
    found = sorted(
        ENVIRONMENT_PATH.glob("lib/python3.*/site-packages/pytriton/tritonserver/bin/tritonserver")
    )
    if not found:
        raise ServicesError(f"no Triton in {ENVIRONMENT_PATH}: run `make install`")
    return found[0].parents[3]


def _python_version(site: Path) -> str:
    return site.parent.name.removeprefix("python")


def _command(site: Path, ports: dict[str, int], repository: str) -> list[str]:
    options = {
        "model-repository": repository,
        "model-control-mode": "explicit",
        "load-model": "*",
        "exit-on-error": "false",
        "strict-readiness": "false",
        "backend-directory": "backends",
        "http-address": "127.0.0.1",
        "grpc-address": "127.0.0.1",
        "metrics-address": "127.0.0.1",
        "allow-gpu-metrics": "false",
        "exit-timeout-secs": "10",
        "log-format": "ISO8601",
    } | {f"{role}-port": str(port) for role, port in ports.items()}
    binary = site / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    return [
        str(binary),
        "--disable-auto-complete-config",
        *(f"--{key}={value}" for key, value in options.items()),
    ]


def _environment(state: State, site: Path, home: Path) -> dict[str, str]:
    """Return the server's environment: credentials, its own libraries and Python, files at home."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PYTHON"))
    }
    libraries = [str(site / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    return kept | {
        "AWS_ACCESS_KEY_ID": state.access_key,
        "AWS_SECRET_ACCESS_KEY": state.secret_key.get_secret_value(),
        "AWS_DEFAULT_REGION": object_store.REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "PATH": os.pathsep.join([str(ENVIRONMENT_PATH / "bin"), os.environ.get("PATH", "")]),
        "TMPDIR": str(home / "tmp"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def _assemble_backends(site: Path, backends_path: Path) -> Path:
    """Copy Triton's Python backend, its stub and our backends into one folder; return the stub."""
    triton = site / "pytriton" / "tritonserver"
    stub = triton / "python_backend_stubs" / _python_version(site) / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServicesError(
            f"nvidia-pytriton has no stub for Python {_python_version(site)}:"
            f" make {ENVIRONMENT_PATH} with Python 3.11"
        )
    shutil.rmtree(backends_path, ignore_errors=True)
    shutil.copytree(triton / "backends" / "python", backends_path / "python")
    shutil.copytree(
        _BACKENDS_PATH,
        backends_path,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return Path(shutil.copy2(stub, backends_path / "python"))


def _check_libraries(stub: Path, environment: dict[str, str]) -> None:
    """Check that the stub's libraries are found: Triton's own words for a missing one lead astray.

    Raises:
        ServicesError: With the missing libraries and what to install.
    """
    output = subprocess.run(
        ["ldd", str(stub)], env=environment, capture_output=True, text=True, check=False
    ).stdout
    missing = [line.split()[0] for line in output.splitlines() if "not found" in line]
    if missing:
        packages = " ".join(sorted({name.split(".so")[0] for name in missing}))
        raise ServicesError(
            f"Triton's Python backend needs {', '.join(missing)}, which this machine does not have:"
            f" install Debian's package {packages} (apt-get install {packages})"
        )


def _is_ready(ports: dict[str, int]) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(
            f"http://127.0.0.1:{ports['http']}/v2/health/ready", timeout=2
        ) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
