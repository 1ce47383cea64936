import time
from pathlib import Path
from typing import Any

import pytest

from plsc.cluster import is_in_cluster, patience
from plsc.cluster.api import Api, ConflictError
from plsc.cluster.connection import find_connection
from plsc.cluster.kinds import DEPLOYMENT, EVENT, JOB, POD, PYTORCHJOB, WORKFLOW
from plsc.cluster.refusals import AwayError, ForbiddenError, MissingError, NotReadyError
from plsc.errors import ClusterError
from tests.kubernetes_api import Call, KubernetesApi


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(patience, "_BLIP_S", 0.0)
    monkeypatch.setattr("plsc.cluster.watching._PAUSE_S", 0.01)


def _job(name: str = "a", **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"x": 1}}


def test_paths_are_those_of_kubernetes() -> None:
    assert POD.path("ns") == "/api/v1/namespaces/ns/pods"
    assert POD.path("ns", "a") == "/api/v1/namespaces/ns/pods/a"
    assert PYTORCHJOB.path("ns", "a") == "/apis/kubeflow.org/v1/namespaces/ns/pytorchjobs/a"
    assert (EVENT.group, JOB.group, WORKFLOW.group) == ("", "batch", "argoproj.io")


def test_a_pod_is_in_a_cluster_and_a_laptop_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert not is_in_cluster()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert is_in_cluster()


def test_without_account_and_kubeconfig_it_is_said_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="set KUBECONFIG to a file that kubectl can use"):
        Api.connect()


def test_a_pod_connects_as_its_service_account(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("token", "ca.crt", "namespace"):
        (tmp_path / name).write_text(f"the-{name}")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr("plsc.cluster.connection._ACCOUNT_PATH", tmp_path)
    loader = "kubernetes.config.incluster_config.SERVICE_{}_FILENAME"
    monkeypatch.setattr(loader.format("TOKEN"), str(tmp_path / "token"))
    monkeypatch.setattr(loader.format("CERT"), str(tmp_path / "ca.crt"))
    connection = find_connection()
    assert connection.namespace == "the-namespace"
    assert connection.configuration.host == "https://10.0.0.1:443"
    assert connection.configuration.get_api_key_with_prefix("authorization") == "bearer the-token"


def test_an_object_is_made_read_listed_and_deleted(api: Api, cluster: KubernetesApi) -> None:
    assert api.get(JOB, "a") is None
    made = api.create(JOB, _job(color="red"))
    assert made["metadata"]["uid"]
    assert api.get(JOB, "a") == made
    api.create(JOB, _job("b", color="blue"))
    assert [one["metadata"]["name"] for one in api.list(JOB)] == ["a", "b"]
    assert [one["metadata"]["name"] for one in api.list(JOB, labels={"color": "red"})] == ["a"]
    assert [one["metadata"]["name"] for one in api.list(JOB, fields={"metadata.name": "b"})] == [
        "b"
    ]
    with pytest.raises(ConflictError, match="already exists"):
        api.create(JOB, _job())
    with pytest.raises(ConflictError, match="UID"):
        api.delete(JOB, "a", uid="another")
    assert api.delete(JOB, "a", uid=made["metadata"]["uid"])
    assert not api.delete(JOB, "a")
    assert Call("create", "batch", "jobs", "", "a") in cluster.calls
    assert Call("delete", "batch", "jobs", "", "a") in cluster.calls


def test_applying_twice_changes_nothing_and_never_takes_what_is_another_s(
    api: Api, cluster: KubernetesApi
) -> None:
    def deployment(replicas: int, image: str) -> dict[str, Any]:
        containers = [{"name": "triton", "image": image}]
        spec = {"replicas": replicas, "template": {"spec": {"containers": containers}}}
        metadata = {"name": "triton"}
        kind = {"apiVersion": "apps/v1", "kind": "Deployment"}
        return {**kind, "metadata": metadata, "spec": spec}

    first = api.apply(DEPLOYMENT, deployment(1, "a"), manager="plsc")
    again = api.apply(DEPLOYMENT, deployment(1, "a"), manager="plsc")
    assert first["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]
    changed = api.apply(DEPLOYMENT, deployment(1, "b"), manager="plsc")
    assert changed["spec"]["template"]["spec"]["containers"][0]["image"] == "b"
    assert changed["metadata"]["generation"] == 2
    cluster.store.own("deployments", "triton", "hpa", "spec.replicas")
    with pytest.raises(ConflictError, match=r'conflict with "hpa" using apps/v1: \.spec\.replicas'):
        api.apply(DEPLOYMENT, deployment(3, "b"), manager="plsc")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 0])
def test_a_server_that_is_away_for_a_moment_is_asked_again(
    api: Api, cluster: KubernetesApi, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="plsc")
    cluster.put("jobs", _job())
    cluster.fail(status, verb="get", times=3, retry_after="0")
    assert api.get(JOB, "a") is not None
    assert len(cluster.made("get", "jobs")) == 4
    assert caplog.text.count("trying again for a while") == 1
    assert caplog.text.count("answers again") == 1


def test_retry_after_is_obeyed(api: Api, cluster: KubernetesApi) -> None:
    cluster.fail(429, verb="list", retry_after="1")
    begin = time.monotonic()
    api.list(JOB)
    assert time.monotonic() - begin >= 1.0


def test_a_server_that_stays_away_is_given_up_with_its_words(
    cluster: KubernetesApi, api: Api
) -> None:
    cluster.fail(503, times=1000, message="no etcd")
    with api.twin(patience_s=0.2) as twin, pytest.raises(AwayError, match=r"\(503\): no etcd"):
        twin.list(JOB)


def test_a_server_that_cannot_be_reached_is_named(api: Api, cluster: KubernetesApi) -> None:
    cluster.is_away = True
    with api.twin(patience_s=0.0) as twin, pytest.raises(AwayError, match=cluster.url):
        twin.list(JOB)


def test_a_create_whose_answer_got_lost_is_a_conflict_the_second_time(
    api: Api, cluster: KubernetesApi
) -> None:
    cluster.put("jobs", _job())  # as if the first try had come through
    cluster.fail(0, verb="create")
    with pytest.raises(ConflictError):
        api.create(JOB, _job())


def test_a_forbidden_call_names_verb_resource_account_and_the_manifest_that_grants_it(
    api: Api, cluster: KubernetesApi
) -> None:
    cluster.allows = lambda call: call.verb != "create"
    with pytest.raises(ForbiddenError) as caught:
        api.create(JOB, _job())
    said = str(caught.value)
    assert "create jobs a in namespace plsc" in said
    assert 'cannot create resource "jobs" in API group "batch"' in said
    assert "'tester'" in said
    assert "manifests/base/platform/rbac.yaml" in said


def test_a_quota_is_no_matter_of_rights(api: Api, cluster: KubernetesApi) -> None:
    cluster.fail(403, message='jobs "a" is forbidden: exceeded quota: tiny')
    with pytest.raises(ForbiddenError, match="exceeded quota") as caught:
        api.create(JOB, _job())
    assert "rbac" not in str(caught.value)


def test_a_refusal_by_a_server_that_served_before_is_doubted_for_a_while(
    api: Api, cluster: KubernetesApi
) -> None:
    api.list(JOB)
    cluster.fail(403, verb="list", times=2, message='cannot list "jobs": roles are not read yet')
    assert api.list(JOB) == []


def test_an_unknown_account_is_told_so(cluster: KubernetesApi, tmp_path: Path) -> None:
    cluster.kubeconfig(tmp_path, token="wrong")
    with Api.connect() as api, pytest.raises(ForbiddenError, match="token or certificate"):
        api.list(JOB)


def test_a_kind_that_the_cluster_does_not_know_is_missing(api: Api, cluster: KubernetesApi) -> None:
    cluster.missing = {"pytorchjobs"}
    with pytest.raises(MissingError):
        api.list(PYTORCHJOB)


class _Watched:
    """A watch that is read step by step."""

    def __init__(self, api: Api) -> None:
        self._states = api.watch(JOB, "a")

    def next(self) -> Any:
        job = next(self._states)
        return None if job is None else job["spec"]["x"]


def test_a_watch_begins_with_what_is_and_tells_every_change_and_the_end(
    api: Api, cluster: KubernetesApi
) -> None:
    watched = _Watched(api)
    assert watched.next() is None
    cluster.put("jobs", _job("another"))
    cluster.put("jobs", _job())
    assert watched.next() == 1
    cluster.update("jobs", "a", lambda job: job["spec"].update(x=2))
    assert watched.next() == 2
    cluster.store.delete("jobs", "a")
    assert watched.next() is None


@pytest.mark.parametrize("status", [0, 410, 429, 500, 503])
def test_a_watch_survives(api: Api, cluster: KubernetesApi, status: int) -> None:
    cluster.put("jobs", _job())
    cluster.fail(status, verb="watch", times=2, after_lines=None)
    watched = _Watched(api)
    assert watched.next() == 1
    cluster.update("jobs", "a", lambda job: job["spec"].update(x=2))
    cluster.until(lambda: watched.next() == 2)


def test_a_watch_that_breaks_within_an_event_tells_it_once_it_is_whole(
    api: Api, cluster: KubernetesApi
) -> None:
    cluster.put("jobs", _job())
    watched = _Watched(api)
    assert watched.next() == 1
    cluster.fail(0, verb="watch", after_lines=0)
    cluster.update("jobs", "a", lambda job: job["spec"].update(x=2))
    assert watched.next() == 2
    cluster.drop_streams()
    cluster.update("jobs", "a", lambda job: job["spec"].update(x=3))
    assert watched.next() == 3


def test_a_watch_whose_past_is_forgotten_begins_anew(api: Api, cluster: KubernetesApi) -> None:
    cluster.put("jobs", _job())
    watched = _Watched(api)
    assert watched.next() == 1
    cluster.drop_streams()
    cluster.update("jobs", "a", lambda job: job["spec"].update(x=2))
    cluster.forget()
    cluster.until(lambda: watched.next() == 2)
    cluster.store.delete("jobs", "a")
    cluster.forget()
    cluster.until(lambda: watched.next() is None)


def test_a_closed_api_ends_its_watch(api: Api, cluster: KubernetesApi) -> None:
    twin = api.twin()
    states = twin.watch(JOB, "a")
    assert next(states) is None
    twin.close()
    assert list(states) == []


def test_a_log_is_read_from_a_second_on_or_its_last_lines_or_the_former_one_s(
    api: Api, cluster: KubernetesApi
) -> None:
    cluster.pod("p")
    with pytest.raises(NotReadyError, match="waiting to start: ContainerCreating"):
        list(api.log("p", "pytorch"))
    with pytest.raises(MissingError):
        list(api.log("q", "pytorch"))
    cluster.run_pod("p")
    cluster.say("p", "old", at_ns=1_000_000_000_123_456_789)
    cluster.say("p", "new", "newer", at_ns=1_000_000_005_000_000_000)
    assert next(api.log("p", "pytorch")) == ("2001-09-09T01:46:40.123456789Z", "old")
    since = "2001-09-09T01:46:45Z"
    assert [text for _, text in api.log("p", "pytorch", since_time=since)] == ["new", "newer"]
    assert [text for _, text in api.log("p", "pytorch", tail=1)] == ["newer"]
    with pytest.raises(NotReadyError, match="previous"):
        list(api.log("p", "pytorch", previous=True))
    cluster.end_pod("p", 1, restarts=True)
    cluster.run_pod("p")
    cluster.say("p", "again")
    cluster.say("p", "failed to try resolving", at_ns=0)
    (_, again), lost = api.log("p", "pytorch")
    assert (again, lost) == ("again", ("", "failed to try resolving"))
    assert len(list(api.log("p", "pytorch", previous=True))) == 3
