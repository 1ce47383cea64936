"""What tests share: the local servers, started once a session and stopped for certain."""

import logging
import multiprocessing.util
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines.services import Services, ServicesError, down, triton, up
from plsc.storage import s3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Doorways configure logging for their process; here that ends with the test."""
    root, library = logging.getLogger(), logging.getLogger("plsc")
    handlers, levels = root.handlers[:], (root.level, library.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    library.setLevel(levels[1])


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny networks gain nothing from threads, and on a busy machine lose seconds to them."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _short_path_of_sockets() -> None:
    """Let multiprocessing make its folder before a test moves the temporary one to a long path."""
    multiprocessing.util.get_temp_dir()


@pytest.fixture(scope="session")
def _state_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("services")
    yield path
    down(path)


@pytest.fixture(scope="session")
def object_store(_state_dir: Path) -> Iterator[Services]:
    """A running S3 server, to which ``plsc.storage`` is connected for the session."""
    try:
        running = up(_state_dir, with_triton=False)
    except ServicesError as error:
        _missing(str(error))
    with connected(running):
        yield running


@pytest.fixture(scope="session")
def services(object_store: Services, _state_dir: Path) -> Iterator[Services]:
    """The S3 server and Triton, with ``PLSC_TRITON_URL`` set for the session."""
    if not triton.ENVIRONMENT_PATH.is_dir():
        _missing(f"no {triton.ENVIRONMENT_PATH}: make it with `make install`")
    running = up(_state_dir)
    with connected(running):
        yield running


@pytest.fixture
def bucket_uri(object_store: Services) -> str:
    """A folder of the bucket that no other test uses."""
    return f"s3://plsc/tests/{uuid.uuid4().hex}"


class connected:
    """Within the block this process, and its children, use these servers."""

    def __init__(self, running: Services) -> None:
        self._patch = pytest.MonkeyPatch()
        self._running = running

    def __enter__(self) -> None:
        for key in [key for key in os.environ if key.startswith("AWS_")]:
            self._patch.delenv(key)
        for key, value in self._running.environment().items():
            self._patch.setenv(key, value)
        s3.client.cache_clear()

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
        s3.client.cache_clear()


def _missing(reason: str) -> None:
    if os.environ.get("SERVICES") == "required":
        pytest.fail(f"SERVICES=required, but {reason}")
    pytest.skip(f"{reason} (SERVICES=required makes this a failure)")
