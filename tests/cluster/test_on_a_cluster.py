"""The steps on a real cluster, with the pipeline's own account, while pods are taken from them."""

import json
import re
import time
from collections.abc import Iterator

import pytest

from tests.cluster.site import Site, forget, until
from tests.cluster.step import Run, Step

pytestmark = pytest.mark.timeout(400)

SMALL = (
    "train.ranks=2 train.pods.count=2 train.pods.cpu=100m train.pods.memory=2Gi"
    " train.pods.shm=64Mi train.pods.grace_s=30 preprocess.pods.cpu=100m"
    " preprocess.pods.memory=1Gi preprocess.pods.shm=64Mi preprocess.memory_mib=128"
    " evaluate.pods.cpu=100m evaluate.pods.memory=2Gi evaluate.pods.shm=64Mi"
)
LONG = f"{SMALL} train.epochs=1000 train.max_steps=%d train.checkpoint_every_steps=20"
INDEX = "s3://plsc/runs/%s/%s/index.json"


@pytest.fixture
def run(site: Site, request: pytest.FixtureRequest) -> Iterator[Run]:
    """A run of its own for each test."""
    made = Run(site, f"t{time.monotonic_ns() % 10**9:09d}")
    yield made
    made.end()
    until("the run's pods are gone", lambda: not pods(made), timeout_s=60)


@pytest.fixture(scope="session")
def dataset(site: Site) -> str:
    """The index of the data set, made by preprocess in its own pod."""
    run = Run(site, "data")
    preprocess(run, SMALL).start().succeeds(timeout_s=120)
    run.end()
    return INDEX % ("data", "preprocess")


@pytest.fixture(scope="session")
def graph(site: Site, dataset: str) -> str:
    """The index of an exported graph, of a model trained by two pods."""
    run = Run(site, "model")
    log = train(run, dataset, f"{SMALL} train.max_steps=20").start().succeeds(timeout_s=200)
    assert "step 20/20" in log
    call = f"""from plsc.export.step import run_step
run_step("tiny", "{SMALL}", "", "model", model_path="{INDEX % ("model", "train")}",
         onnx_path="/tmp/onnx.json", metadata={{}})"""
    Step(run, "export", call).start().succeeds(timeout_s=120)
    run.end()
    return INDEX % ("model", "export")


def preprocess(run: Run, overrides: str) -> Step:
    call = f"""from plsc.preprocess.step import run_step
run_step("tiny", "{overrides}", "", "{run.run_id}", dataset_path="/tmp/dataset.json",
         metadata={{}}, report_path="/tmp/report.html")"""
    return Step(run, "preprocess", call)


def train(run: Run, dataset: str, overrides: str, *, env: dict[str, str] | None = None) -> Step:
    call = f"""from plsc.train.step import run_step
run_step("tiny", "{overrides}", "", "{run.run_id}", resume_run="", dataset_path="{dataset}",
         model_path="/tmp/model.json", metadata={{}}, metrics={{}})"""
    return Step(run, "train", call, of="train-launch", env=env)


def deploy(run: Run, graph: str, overrides: str = "") -> Step:
    call = f"""from plsc.deploy.step import run_step
run_step("tiny", "{overrides}", "", "{run.run_id}", onnx_path="{graph}", metadata={{}})"""
    return Step(run, "deploy", call)


def pods(run: Run) -> list[dict]:
    """The pods of the jobs that the run's steps have made."""
    return run.site.find("pod", f"plsc/run-id={run.run_id}")


def pod_of(run: Run, ending: str) -> str:
    """Wait for a running pod of the run's jobs whose name ends so, and return its name."""

    def look() -> str:
        running = [pod for pod in pods(run) if pod["status"]["phase"] == "Running"]
        names = [pod["metadata"]["name"] for pod in running]
        return next((name for name in names if re.search(ending, name)), "")

    try:
        return until(f"a running pod *{ending}", look, timeout_s=90, every_s=0.2)
    except TimeoutError as error:
        said = [site_log(run, pod) for pod in run.site.find("pod")]
        raise AssertionError("\n".join([str(error), *said])) from None


def site_log(run: Run, pod: dict) -> str:
    name = pod["metadata"]["name"]
    return f"{name}: {pod['status']['phase']}\n" + run.site.kubectl(
        "logs", name, "--tail=15", check=False
    )


def jobs(run: Run) -> list[dict]:
    return run.site.find("pytorchjob", f"plsc/run-id={run.run_id}")


def steps_said(log: str) -> list[int]:
    return [int(step) for step in re.findall(r"step (\d+)/", log)]


def digests(site: Site, index: str) -> list[str]:
    """The digests of the shards that an index names, read inside the cluster."""
    code = f"""import json
from plsc.artifacts.shards import ShardSet
print("digests", json.dumps([shard.sha256 for shard in ShardSet.read("{index}").shards]))"""
    run = Run(site, f"look{time.monotonic_ns() % 10**6}")
    log = Step(run, "preprocess", code).start().succeeds(timeout_s=60)
    run.end()
    return json.loads(log.split("digests ", 1)[1])


def test_preprocess_with_two_pods_one_of_them_killed(
    site: Site, dataset: str, run: Run, note: list[str]
) -> None:
    apart = f"{SMALL} store_uri=s3://plsc/apart data_uri=s3://plsc/data/tiny"
    step = preprocess(run, f"{apart} preprocess.pods.count=2").start()
    lost = pod_of(run, r"-map-.*-1-\w+$")
    site.kubectl("delete", "pod", lost, "--force", "--grace-period=0")
    log = step.succeeds(timeout_s=180)
    assert re.search(r"map: .*2 pods", log), log
    made = f"s3://plsc/apart/runs/{run.run_id}/preprocess/index.json"
    assert digests(site, made) == digests(site, dataset)
    note.append("the shards are those that one process makes, bit for bit")


def test_training_on_two_pods_to_the_end(site: Site, dataset: str, run: Run) -> None:
    log = train(run, dataset, f"{SMALL} train.max_steps=60").start().succeeds(timeout_s=200)
    assert steps_said(log)[-1] == 60, log
    (job,) = jobs(run)
    assert job["metadata"]["ownerReferences"][0]["uid"] == run.owner["uid"]


def test_a_worker_pod_is_deleted_and_training_goes_on(
    site: Site, dataset: str, run: Run, note: list[str]
) -> None:
    step = train(run, dataset, LONG % 400).start()
    step.says("step 30/", timeout_s=120)
    site.kubectl("delete", "pod", pod_of(run, "-worker-0$"), "--wait=false")
    log = step.succeeds(timeout_s=300)
    (resumed,) = set(re.findall(r"resumes run \S+ from step (\d+)", log))
    assert steps_said(log)[-1] == 400, log
    assert max(steps_said(log.split("resumes run")[0])) <= int(resumed) + 10
    note.append(f"from step {resumed}")


def test_the_launchers_pod_is_deleted_and_the_next_adopts_the_job(
    site: Site, dataset: str, run: Run, note: list[str]
) -> None:
    step = train(run, dataset, LONG % 300).start()
    step.says("step 30/", timeout_s=120)
    (before,) = jobs(run)
    step.lose_pod()
    log = step.start().succeeds(timeout_s=200)
    (after,) = jobs(run)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert "adopt" in log
    assert "resumes run" not in log
    assert steps_said(log)[-1] == 300
    note.append(f"the next launcher's first line is of step {steps_said(log)[0]}")


def test_termination_ends_the_job_and_its_workers_and_a_retry_resumes(
    site: Site, dataset: str, run: Run, note: list[str]
) -> None:
    step = train(run, dataset, LONG % 400).start()
    step.says("step 30/", timeout_s=120)
    run.terminate()
    begin = time.monotonic()
    step.lose_pod()
    until("the job is gone", lambda: not jobs(run), timeout_s=5 - (time.monotonic() - begin))
    job_s = time.monotonic() - begin
    until("the workers are gone", lambda: not pods(run), timeout_s=45)
    workers_s = time.monotonic() - begin
    patch = '{"spec": {"activeDeadlineSeconds": null}}'
    site.kubectl("patch", "workflow", run.owner["name"], "--type=merge", f"--patch={patch}")
    log = step.start().succeeds(timeout_s=250)
    (resumed,) = re.findall(r"resumes run \S+ from step (\d+)", log)
    assert int(resumed) >= 30
    assert steps_said(log)[-1] == 400
    note.append(f"job gone in {job_s:.1f} s, workers in {workers_s:.1f} s, then from {resumed}")


def fails(step: Step, *words: str, within_s: float) -> str:
    """Let a step fail, and return its error, which must hold the words."""
    begin = time.monotonic()
    assert step.start().ends(timeout_s=within_s) not in (0, None)
    log = step.log()
    errors = [line for line in log.splitlines() if "Error: " in line]
    assert errors, log
    told = "\n".join(log.splitlines()[log.splitlines().index(errors[0]) :])
    for word in words:
        assert re.search(word, told), told
    return f"told after {time.monotonic() - begin:.0f} s"


def test_an_image_that_does_not_exist(site: Site, dataset: str, run: Run, note: list[str]) -> None:
    overrides = f"{SMALL} train.pods.image=localhost/nowhere:1 train.pods.image_timeout_s=15"
    step = train(run, dataset, overrides)
    note.append(fails(step, "localhost/nowhere:1", "Pull|pull", within_s=90))
    assert not jobs(run)


def test_a_memory_limit_that_is_too_small(
    site: Site, dataset: str, run: Run, note: list[str]
) -> None:
    step = train(run, dataset, f"{SMALL} train.pods.memory=96Mi train.pods.shm=16Mi")
    note.append(fails(step, "OOMKilled", r"train\.pods\.memory", within_s=150))


def test_a_request_that_no_node_can_meet(
    site: Site, dataset: str, run: Run, note: list[str]
) -> None:
    overrides = f"{SMALL} train.pods.cpu=1000 train.pods.schedule_timeout_s=10"
    note.append(fails(train(run, dataset, overrides), "Insufficient cpu", within_s=60))
    assert not jobs(run)


def evaluate(run: Run, num_pods: int) -> dict[str, float]:
    """Verify the session's model in the step's own pod, or in so many; return the metrics."""
    call = f"""import json
from plsc.evaluate.step import run_step
metrics = {{}}
run_step("tiny", "{SMALL} evaluate.pods.count={num_pods}", "", "{run.run_id}",
         model_path="{INDEX % ("model", "train")}", results_path="/tmp/results.json",
         metrics=metrics, roc={{}}, report_path="/tmp/report.html")
print("metrics", json.dumps(metrics))"""
    log = Step(run, "evaluate", call).start().succeeds(timeout_s=200)
    return json.loads(log.split("metrics ", 1)[1])


def test_evaluate_with_two_pods(site: Site, graph: str, run: Run, note: list[str]) -> None:
    apart = evaluate(run, 2)
    forget(site, f"pod/{run.run_id}-evaluate")
    assert evaluate(run, 0) == apart
    note.append(f"the same {len(apart)} figures as by one process")


ASKING = """
import json, sys, time
import numpy as np
from plsc.client import Client
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
answered, failed, versions, until = 0, [], {}, time.monotonic() + %(seconds)d
with Client.connect("triton:8001", model="tiny") as client:
    while time.monotonic() < until:
        try:
            client.encode(images)
            version = client.describe().version
            if version not in versions:
                print("version", version, flush=True)
            versions[version] = versions.get(version, 0) + 1
            answered += 1
        except Exception as error:
            failed.append(repr(error))
        if versions.get(%(enough)r, 0) > 200:
            break
print("asked", json.dumps([answered, failed[:3], versions]))
"""


def test_version_2_replaces_version_1_and_no_request_fails(
    site: Site, graph: str, run: Run, note: list[str]
) -> None:
    first = deploy(run, graph).start()
    assert "version 1" in first.succeeds(timeout_s=200)
    client = Step(run, "deploy", ASKING % {"seconds": 120, "enough": "2"})
    client.name += "-client"
    client._manifest["metadata"]["name"] = client.name
    client.start().says("version 1", timeout_s=60)
    second = deploy(run, graph)
    second.name += "-2"
    second._manifest["metadata"]["name"] = second.name
    assert "version 2" in second.start().succeeds(timeout_s=120)
    answered, failed, versions = json.loads(client.succeeds(timeout_s=150).split("asked ", 1)[1])
    assert not failed
    assert set(versions) == {"1", "2"}
    note.append(f"{answered} requests answered, none failed")


def test_a_failing_canary_changes_nothing(
    site: Site, graph: str, run: Run, note: list[str]
) -> None:
    step = deploy(run, graph, "deploy.canary_tolerance=-1")
    note.append(fails(step, "canary", within_s=120))
    with site.forwarded("triton", 8001) as address:
        assert served(address) == "2"


def test_a_client_asks_through_a_forwarded_port(site: Site, graph: str, note: list[str]) -> None:
    with site.forwarded("triton", 8001) as address:
        note.append(f"version {served(address)} answers at {address}")


def served(address: str) -> str:
    """Ask the endpoint for embeddings, check that they are some, and return the version."""
    import numpy as np

    from plsc.client import Client

    with Client.connect(address, model="tiny") as client:
        embeddings = client.encode(np.zeros((1, 32, 32, 3), np.uint8))
        assert abs(float(np.linalg.norm(embeddings)) - 1) < 1e-3
        return str(client.describe().version)
