"""Every line of the speaker once, whatever happens to connections, containers and pods."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from plsc.cluster.job_request import JobRequest
from plsc.cluster.log_following import Seen
from tests.cluster_api.conftest import Running
from tests.kubernetes_api import KubernetesApi

Start = Callable[[JobRequest], Running]
_MASTER = {"training.kubeflow.org/replica-type": "master"}
_SECOND = 1_000_000_000


@pytest.fixture
def master(
    cluster: KubernetesApi, running: Start, training: JobRequest
) -> Iterator[tuple[Running, str]]:
    """A training whose master runs; it succeeds at the end of the test."""
    run = running(training)
    cluster.pod("m", cluster.one("pytorchjobs"), _MASTER)
    cluster.run_pod("m")
    yield run, training.name
    assert run.error is None


def _succeed(cluster: KubernetesApi, master: tuple[Running, str]) -> list[str]:
    run, name = master
    cluster.condition("pytorchjobs", name, "Succeeded")
    assert run.end() is None
    return run.lines


def test_lines_are_neither_lost_nor_doubled_over_dropped_connections(
    cluster: KubernetesApi, master: tuple[Running, str]
) -> None:
    said = []
    for count in range(30):
        said.append(f"line {count}")
        cluster.say("m", said[-1])
        if count % 7 == 3:
            cluster.until(lambda: master[0].lines)
            cluster.drop_streams()
    cluster.end_pod("m")
    assert _succeed(cluster, master) == said


def test_equal_lines_of_one_moment_stay_as_many_as_they_are(
    cluster: KubernetesApi, master: tuple[Running, str]
) -> None:
    moment = 1_800_000_000 * _SECOND
    cluster.say("m", "same", "same", at_ns=moment)
    cluster.until(lambda: len(master[0].lines) == 2)
    cluster.drop_streams()
    cluster.say("m", "same", at_ns=moment)
    cluster.say("m", "late in another stream", at_ns=moment - 1)
    cluster.end_pod("m")
    assert _succeed(cluster, master) == ["same", "same", "same", "late in another stream"]


def test_a_connection_that_breaks_within_a_line_does_not_cut_it(
    cluster: KubernetesApi, running: Start, training: JobRequest
) -> None:
    cluster.fail(0, resource="pods/log", after_lines=1)
    run = running(training)
    cluster.pod("m", cluster.one("pytorchjobs"), _MASTER)
    cluster.run_pod("m")
    cluster.say("m", "first", "a rather long line", "third")
    cluster.end_pod("m")
    assert _succeed(cluster, (run, training.name)) == [
        "first",
        "a rather long line",
        "third",
    ]


def test_a_line_without_a_time_is_the_kubelet_s_and_does_not_end_the_listening(
    cluster: KubernetesApi, master: tuple[Running, str]
) -> None:
    cluster.say("m", "one")
    cluster.say("m", 'failed to try resolving symlinks in path "/var/log/pods/0.log"', at_ns=0)
    cluster.say("m", "two")
    cluster.end_pod("m")
    assert _succeed(cluster, master) == ["one", "two"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_costs_no_line(
    cluster: KubernetesApi, running: Start, training: JobRequest, status: int
) -> None:
    cluster.fail(status, resource="pods/log", times=3)
    run = running(training)
    cluster.pod("m", cluster.one("pytorchjobs"), _MASTER)
    cluster.run_pod("m")
    cluster.say("m", "one")
    cluster.until(lambda: run.lines == ["one"])
    cluster.end_pod("m")
    assert _succeed(cluster, (run, training.name)) == ["one"]


def test_a_container_that_is_started_again_is_heard_to_its_last_word(
    cluster: KubernetesApi, master: tuple[Running, str]
) -> None:
    cluster.say("m", "one")
    cluster.until(lambda: master[0].lines)
    with cluster.store.changed:  # all of it between two looks
        cluster.drop_streams()
        cluster.say("m", "last words")
        cluster.end_pod("m", 1, restarts=True)
        cluster.run_pod("m")
        cluster.say("m", "again")
    cluster.until(lambda: "again" in master[0].lines)
    cluster.end_pod("m")
    assert _succeed(cluster, master) == ["one", "last words", "again"]


def test_a_master_made_anew_is_heard_too(
    cluster: KubernetesApi, master: tuple[Running, str]
) -> None:
    cluster.say("m", "one")
    cluster.until(lambda: master[0].lines)
    cluster.remove_pod("m")
    cluster.pod("m", cluster.one("pytorchjobs"), _MASTER)
    time.sleep(0.2)
    cluster.run_pod("m")
    cluster.say("m", "two")
    cluster.until(lambda: len(master[0].lines) == 2)
    cluster.end_pod("m")
    assert _succeed(cluster, master) == ["one", "two"]


def test_what_is_said_after_the_job_has_succeeded_is_heard(
    cluster: KubernetesApi, master: tuple[Running, str]
) -> None:
    run, name = master
    cluster.say("m", *(f"line {n}" for n in range(500)))
    cluster.condition("pytorchjobs", name, "Succeeded")
    cluster.say("m", "the end")
    cluster.end_pod("m")
    assert run.end() is None
    assert run.lines[-1] == "the end"
    assert len(run.lines) == 501


def test_an_adopted_job_tells_the_end_of_what_it_said_before(
    cluster: KubernetesApi, running: Start, training: JobRequest, place: Any
) -> None:
    job = cluster.put("pytorchjobs", training.object(place))
    cluster.pod("m", job, _MASTER)
    cluster.run_pod("m")
    cluster.say("m", *(f"line {n}" for n in range(300)))
    run = running(training)
    cluster.until(lambda: len(run.lines) == 200)
    cluster.say("m", "new")
    cluster.end_pod("m")
    lines = _succeed(cluster, (run, training.name))
    assert lines == [*(f"line {n}" for n in range(100, 300)), "new"]


def test_without_a_speaker_no_log_is_asked_for(
    cluster: KubernetesApi, running: Start, mapping: JobRequest
) -> None:
    run = running(replace(mapping, speaker={}))
    cluster.pod("m", cluster.one("jobs"), _MASTER)
    cluster.run_pod("m")
    cluster.condition("jobs", mapping.name, "Complete")
    assert run.end() is None
    assert not cluster.made("get", "pods/log")


def test_only_the_last_seconds_are_remembered() -> None:
    seen = Seen()
    for second in range(100):
        stamp = f"2026-11-23T02:{second // 60:02}:{second % 60:02}.000000001Z"
        assert list(seen.fresh(iter([(stamp, "x")]))) == ["x"]
        assert list(seen.fresh(iter([(stamp, "x")]))) == []
    assert len(seen._lines) <= 6
    assert seen.since_time == "2026-11-23T02:01:37Z"


def test_times_of_another_zone_and_of_any_precision_are_understood() -> None:
    seen = Seen()
    lines = [("2026-11-23T03:00:00+01:00", "a"), ("2026-11-23T03:00:01.5+01:00", "b")]
    assert list(seen.fresh(iter(lines))) == ["a", "b"]
    assert seen.since_time == "2026-11-23T01:59:59Z"
