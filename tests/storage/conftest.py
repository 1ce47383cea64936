"""The two stores that are written to, and the way to spoil one of them."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from botocore.loaders import JSONFileLoader

from pipelines.services import Services
from plsc.storage import patience
from tests.faults import Fault, FaultProxy, behind


@pytest.fixture(autouse=True, scope="session")
def _models_of_botocore_are_read_once() -> Iterator[None]:
    """Many tests make a client of their own, and reading its models is most of the work."""
    with pytest.MonkeyPatch.context() as patch:
        load = functools.cache(functools.partial(JSONFileLoader.load_file, JSONFileLoader()))
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: load(path))
        yield


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
    monkeypatch.setattr(patience, "PAUSE_S", 0.002)

    def connect(*faults: Fault) -> AbstractContextManager[FaultProxy]:
        silences = [fault for fault in faults if fault.kind == "stall"]
        is_forever = any(fault.times is None for fault in silences)
        limit = "0.15" if is_forever else "0.4" if silences else "30"  # no false alarms
        monkeypatch.setenv("S3_TIMEOUT_S", limit)
        return behind(FaultProxy(object_store.s3_endpoint, faults), monkeypatch)

    return connect
