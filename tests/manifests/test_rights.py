"""The role of the pipeline's steps allows the calls that they make, and no others.

The steps' own code runs against a stub API server that refuses what the role does not allow. A
second look, at the source, finds calls that no scenario here makes.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from plsc import conf
from plsc.cluster import kinds
from plsc.cluster.api import Api
from plsc.cluster.job_request import JobRequest
from plsc.cluster.jobs import JobFailedError, run_to_end
from plsc.cluster.kinds import JOB
from plsc.cluster.place import Place
from plsc.cluster.termination import Standby
from plsc.deploy import turn
from plsc.deploy.deployment import bring_up
from plsc.train.backends.pytorchjob import job_request
from tests.kubernetes_api import Call, KubernetesApi
from tests.manifests.jobs import PLACE, RUN_ID, shared_job
from tests.manifests.rendering import of_kind, read
from tests.manifests.rights import allowing, parts

PLSC = Path(__file__).parents[2] / "plsc"
RULES = of_kind(read("base/platform/rbac.yaml"), "Role", "plsc-pipeline")["rules"]
MASTER = {
    "training.kubeflow.org/replica-type": "master",
    "training.kubeflow.org/replica-index": "0",
}
VERBS = {
    "get": ["get"], "list": ["list"], "watch": ["list", "watch"], "create": ["create"],
    "delete": ["delete"], "apply": ["patch", "create"],
}  # fmt: skip
"""What the methods of ``Api`` need."""


class Warden:
    """Refuses what the role does not allow, and remembers which of its parts were of use."""

    def __init__(self, cluster: KubernetesApi) -> None:
        self.used: set[tuple[str, ...]] = set()
        self.refused: list[Call] = []
        self._cluster = cluster
        cluster.allows = self._allows

    def _allows(self, call: Call) -> bool:
        calls = [call]
        if call.verb == "patch" and not self._is_there(call):
            # To apply what is not there is to create it, with the name known.
            calls.append(Call("create", call.group, call.resource, "", call.name))
        found = [allowing(RULES, one) for one in calls]
        if all(found):
            self.used.update(*found)
            return True
        self.refused.append(call)
        return False

    def _is_there(self, call: Call) -> bool:
        return any(
            one["metadata"]["name"] == call.name for one in self._cluster.store.find(call.resource)
        )


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    for variable in ("KUBERNETES_SERVICE_HOST", "KFP_POD_NAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOSTNAME", PLACE.pod)
    for name in ("pod_watch._WAITING_S", "pod_watch._RUNNING_S", "jobs._PULSE_S"):
        monkeypatch.setattr(f"plsc.cluster.{name}", 0.05)
    with KubernetesApi() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path)))
        running.put("workflows", {"metadata": {"name": "plsc-abcde", "uid": "1"}, "spec": {}})
        running.pod(PLACE.pod)
        step = {"ownerReferences": [PLACE.owner]}
        running.update("pods", PLACE.pod, lambda pod: pod["metadata"].update(step))
        yield running


def played(play: Callable[[], None], act: Callable[[], object]) -> None:
    """Let ``play`` move the cluster while ``act`` runs."""
    thread = Thread(target=play)
    thread.start()
    try:
        act()
    finally:
        thread.join()


def run(api: Api, request: JobRequest) -> None:
    run_to_end(api, Place.here(api), request, on_line=lambda _: None)


def training() -> JobRequest:
    config = conf.compose("glyphs", f"run_id={RUN_ID}", "train.pods.image=plsc-train:0.1.0")
    return job_request(config, [f"run_id={RUN_ID}"])


def mapping(tmp_path: Path) -> JobRequest:
    config = conf.compose("glyphs", f"run_id={RUN_ID}")
    report_uri = str(tmp_path / "pods.txt")
    pods = config.preprocess.pods
    return JobRequest(
        JOB, shared_job(), "preprocess", "map", RUN_ID, pods, "worker", {}, report_uri
    )


def train_waits_and_succeeds(cluster: KubernetesApi, api: Api, _: Path) -> None:
    request = training()

    def play() -> None:
        cluster.pod("master-0", cluster.one("pytorchjobs"), MASTER)
        cluster.unschedulable("master-0", "0/1 nodes are available")
        cluster.until(lambda: cluster.made("list", "events"))
        cluster.run_pod("master-0")
        cluster.say("master-0", "[train] step 1")
        cluster.until(lambda: cluster.made("get", "pods/log"))
        cluster.end_pod("master-0")
        cluster.condition("pytorchjobs", request.name, "Succeeded")

    played(play, lambda: run(api, request))


def map_fails_and_tells_why(cluster: KubernetesApi, api: Api, tmp_path: Path) -> None:
    request = mapping(tmp_path)

    def play() -> None:
        cluster.pod("map-0", cluster.one("jobs"), container="worker")
        cluster.run_pod("map-0")
        cluster.say("map-0", "bad")
        cluster.end_pod("map-0", 1)
        cluster.condition("jobs", request.name, "Failed", reason="BackoffLimitExceeded")

    with pytest.raises(JobFailedError, match="BackoffLimitExceeded"):
        played(play, lambda: run(api, request))


def former_jobs_are_removed_and_made_anew(cluster: KubernetesApi, api: Api, tmp_path: Path) -> None:
    for request, plural in ((training(), "pytorchjobs"), (mapping(tmp_path), "jobs")):
        former = cluster.store.find(plural) or [cluster.put(plural, request.object(PLACE))]
        uid = former[0]["metadata"]["uid"]
        name, done = request.name, "Succeeded" if plural == "pytorchjobs" else "Complete"
        cluster.condition(plural, name, done, "False")
        cluster.condition(plural, name, "Failed")

        def play(plural: str = plural, name: str = name, done: str = done, uid: str = uid) -> None:
            cluster.until(lambda: _uid(cluster, plural) not in {"", uid})
            cluster.condition(plural, name, done)

        played(play, lambda request=request: run(api, request))  # type: ignore[misc]


def _uid(cluster: KubernetesApi, plural: str) -> str:
    found = cluster.store.find(plural)
    return str(found[0]["metadata"]["uid"]) if found else ""


def the_run_is_terminated(cluster: KubernetesApi, api: Api, _: Path) -> None:
    request = training()
    cluster.update("workflows", "plsc-abcde", lambda one: one["spec"].update(shutdown="Stop"))
    Standby(api, PLACE, request).end_job_if_run_ends()


def deploy_makes_triton(cluster: KubernetesApi, api: Api, _: Path) -> None:
    def play() -> None:
        cluster.one("deployments")
        status = {
            "observedGeneration": 99, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1,
        }  # fmt: skip
        cluster.update("deployments", "triton", lambda one: one["status"].update(status))

    played(play, lambda: bring_up(api, image="plsc-triton:0.1.0", timeout_s=20))
    with turn.taken(api, "s3://plsc/models/glyphs"):
        cluster.one("leases")
    other = turn._manifest("s3://plsc/models/glyphs", "a pod that is gone")
    cluster.put("leases", other)
    with turn.taken(api, "s3://plsc/models/glyphs"):
        assert cluster.one("leases")["spec"]["holderIdentity"] == PLACE.pod


SCENARIOS = (
    train_waits_and_succeeds,
    map_fails_and_tells_why,
    former_jobs_are_removed_and_made_anew,
    the_run_is_terminated,
    deploy_makes_triton,
)


def test_the_role_allows_what_the_steps_do_and_nothing_of_it_is_unused(
    cluster: KubernetesApi, tmp_path: Path
) -> None:
    warden = Warden(cluster)
    with Api.connect() as api:
        for scenario in SCENARIOS:
            scenario(cluster, api, tmp_path)
            assert not warden.refused, scenario.__name__
    assert parts(RULES) - warden.used == set()


def _calls() -> Iterator[tuple[str, str, kinds.Kind]]:
    """Yield (place, method, kind) of every call in the source whose kind is written out."""
    known = {name: value for name, value in vars(kinds).items() if isinstance(value, kinds.Kind)}
    known["LEASE"] = turn.LEASE
    for path in sorted(PLSC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in VERBS
                and node.args
                and isinstance(node.args[0], ast.Name)
                and node.args[0].id in known
            ):
                yield f"{path.name}:{node.lineno}", node.func.attr, known[node.args[0].id]


def test_every_call_in_the_source_is_allowed() -> None:
    calls = list(_calls())
    assert len(calls) > 10
    allowed = {part[:3] for part in parts(RULES)}
    missing = [
        f"{place}: {verb} {kind.plural}"
        for place, method, kind in calls
        for verb in VERBS[method]
        if (kind.group, kind.plural, verb) not in allowed
    ]
    assert missing == []
