"""The images that ``make images`` built, and the daemon that has them."""

import importlib.util
import os

import pytest

from components.images import NAMES, ref
from images import engine


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """Name -> image, all of which the daemon has; skips, or fails, where it has them not."""
    is_required = os.environ.get("CONTAINERS") == "required"
    if is_required:
        engine.ready()
    elif not engine.is_ready():
        _missing("no docker daemon answers")
    found = {name: ref(name) for name in NAMES}
    absent = [
        image
        for image in found.values()
        if engine.docker("image", "inspect", image, check=False).returncode
    ]
    if absent:
        _missing(f"there is no image {', '.join(absent)}: run `make images`")
    return found


@pytest.fixture(scope="session")
def docker_library() -> None:
    """kfp's DockerRunner needs PyPI's docker."""
    if importlib.util.find_spec("docker") is None:
        _missing("PyPI's docker is not installed")


def _missing(reason: str) -> None:
    if os.environ.get("CONTAINERS") == "required":
        pytest.fail(f"CONTAINERS=required, but {reason}")
    pytest.skip(f"{reason} (CONTAINERS=required makes this a failure)")
