"""The cluster's tests: one site for all of them, one line for each of them.

They run with ``make test-cluster`` alone, against whatever ``KUBECONFIG`` points at.
"""

import os
from collections.abc import Iterator

import pytest

from tests.cluster.site import Site


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip everything here, loudly, unless a cluster is asked for."""
    if os.environ.get("CLUSTER") == "required":
        return
    reason = "needs a Kubernetes cluster: make test-cluster"
    for item in items:
        if "tests/cluster/" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A namespace of our own with the kind overlay in it; it is gone afterwards."""
    with Site.made() as made:
        yield made


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """What the test's line says besides its name."""
    notes: list[str] = []
    yield notes
    request.node.user_properties.append(("note", "; ".join(notes)))


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Print no dot: a case has its line."""
    if os.environ.get("CLUSTER") == "required" and report.passed:
        return ("passed" if report.when == "call" else "", "", "")
    return None


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print the one line of a case, when it has ended with everything that it started."""
    if os.environ.get("CLUSTER") != "required":
        return
    _SECONDS[report.nodeid] = _SECONDS.get(report.nodeid, 0.0) + report.duration
    if report.outcome != "passed":
        _FAILED.add(report.nodeid)
    if report.when == "teardown":
        name = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
        verdict = "FAILED" if report.nodeid in _FAILED else "ok"
        notes = dict(report.user_properties).get("note", "")
        line = f"{verdict:<7}{_SECONDS[report.nodeid]:6.1f} s  {name}" + (
            f": {notes}" * bool(notes)
        )
        print(f"\n{line}", end="", flush=True)


_SECONDS: dict[str, float] = {}
_FAILED: set[str] = set()
