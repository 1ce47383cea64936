"""The two stores that are written to, and the way to spoil one of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pipelines.services import Services
from plsc.storage import patience
from tests.faults import Fault, FaultProxy, behind


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.services)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("bucket_uri"))


@pytest.fixture
def through(
    object_store: Services, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AbstractContextManager[FaultProxy]]:
    """Give a context manager that puts these faults between storage and the store."""
    monkeypatch.setattr(patience, "PAUSE_S", 0.01)

    def connect(*faults: Fault) -> AbstractContextManager[FaultProxy]:
        is_silent = any(fault.kind == "stall" for fault in faults)
        monkeypatch.setenv("S3_TIMEOUT_S", "0.4" if is_silent else "30")  # no false alarms
        return behind(FaultProxy(object_store.s3_endpoint, faults), monkeypatch)

    return connect
