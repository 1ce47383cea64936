from typing import Any

import pytest

from plsc.cluster import live_state
from plsc.cluster.diagnosis import Obstacle
from plsc.cluster.live_state import LiveState, describe


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[float]:
    """The time, to be moved."""
    caplog.set_level("INFO", logger="plsc")
    now = [0.0]
    monkeypatch.setattr(live_state.time, "monotonic", lambda: now[0])
    return now


def test_the_number_that_runs_is_told_at_once_and_details_every_30_s(
    clock: list[float], caplog: Any
) -> None:
    state = LiveState()
    state.tell("waiting: 0 of 2 pods run", "")
    state.tell("waiting: 0 of 2 pods run", "a: Unschedulable")
    state.tell("waiting: 0 of 2 pods run", "b: Unschedulable")
    clock[0] = 29.0
    state.tell("waiting: 0 of 2 pods run", "b: Unschedulable")
    clock[0] = 31.0
    state.tell("waiting: 0 of 2 pods run", "b: Unschedulable")
    state.tell("waiting: 0 of 2 pods run", "b: Unschedulable")
    clock[0] = 32.0
    state.tell("2 of 2 pods run", "")
    assert caplog.messages == [
        "waiting: 0 of 2 pods run",
        "waiting: 0 of 2 pods run; a: Unschedulable",
        "waiting: 0 of 2 pods run; b: Unschedulable",
        "2 of 2 pods run",
    ]


def test_few_of_many_troubles_are_named() -> None:
    obstacles = [Obstacle(f"p-{n}", "node", "Unschedulable", "") for n in range(9)]
    pods = [{"metadata": {"name": f"p-{n}"}, "status": {"phase": "Pending"}} for n in range(9)]
    head, details = describe(pods, obstacles, num_pods=9)
    assert head == "waiting: 0 of 9 pods run"
    assert details == ("p-0: Unschedulable; p-1: Unschedulable; p-2: Unschedulable; and 6 more")
