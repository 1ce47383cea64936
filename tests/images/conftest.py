"""The images that ``make images`` built, and the daemon that has them."""

import importlib.util
import os

import pytest

from components.images import NAMES
from images import build, engine


class Images(dict[str, str]):
    """Name -> image; a test that asks for one that ONLY leaves out is skipped."""

    def __missing__(self, name: str) -> str:
        pytest.skip(f"ONLY={os.environ.get('ONLY')} leaves the image of {name} out")


@pytest.fixture(scope="session")
def images() -> Images:
    """The images, in REGISTRY and with TAG; skips, or fails, where the daemon has them not."""
    is_required = os.environ.get("CONTAINERS") == "required"
    if is_required:
        engine.ready()
    elif not engine.is_ready():
        _missing("no docker daemon answers")
    names = os.environ.get("ONLY", "").split() or NAMES
    found = Images({name: build.tag_of(name) for name in names})
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
