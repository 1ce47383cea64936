"""The train step on a cluster: what it makes, passes on, and says when the job fails."""

import json
import subprocess
import sys

import pytest

from plsc import doorway, storage
from plsc.artifacts.shards import ShardSet
from plsc.errors import ClusterError, ShardError, TrainError
from plsc.train import lease
from plsc.train.backends import RankKilledError, chosen
from plsc.train.backends.pytorchjob import PyTorchJob
from plsc.train.backends.torchrun import Torchrun
from plsc.train.stage import run
from plsc.train.step import run_step
from tests.kubernetes_api import KubernetesApi
from tests.train.backends.manifests import configured

MASTER = {
    "training.kubeflow.org/replica-type": "master",
    "training.kubeflow.org/replica-index": "0",
}
TASK = {"resources": {"requests": {"cpu": "3"}}, "env": None}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with KubernetesApi() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
        yield api


@pytest.fixture
def train(cluster, place, tmp_path):
    """Run the step on the cluster; ``master`` plays rank 0's pod: gets the job and its pod."""

    def training(run_id, master, *overrides):
        def control(job):
            name = job["metadata"]["name"] + "-master-0"
            cluster.pod(name, job=job, labels=MASTER)
            master(job, name)

        cluster.controllers["pytorchjobs"] = control
        more = ("train.backend=pytorchjob", "train.pods.image=plsc-train:0.1.0", "train.ranks=1")
        metadata = {}
        run_step(
            "tiny", " ".join((*place.overrides(run_id), *more, *overrides)), "", run_id,
            resume_run="", dataset_path=f"{place.store}/runs/shards/preprocess/index.json",
            model_path=str(tmp_path / "model.json"), metadata=metadata, metrics={}, task=TASK,
        )  # fmt: skip
        return metadata

    return training


def finish(cluster, job, name, code=0, **how):
    cluster.end_pod(name, code, **how)
    kind = "Failed" if code else "Succeeded"
    cluster.condition("pytorchjobs", job["metadata"]["name"], kind, reason=f"PyTorchJob{kind}")


def test_the_step_trains_in_a_job_and_speaks_for_rank_0(cluster, train, place, capfd):
    seen = {}

    def master(job, name):
        seen["job"] = job
        cluster.run_pod(name)
        cluster.say(name, "[train] step 1/2  loss 3.1", "W1123 torchrun says something")
        config = place.config("cluster", "train.max_steps=2", "train.ranks=1")
        config.train.dataset_uri = f"{place.store}/runs/shards/preprocess/index.json"
        seen["has_lease"] = cluster.until(lambda: storage.exists(lease.lease_uri(config)))
        seen["config"] = config
        run(config)
        cluster.say(name, "[train] step 2/2  loss 3.0")
        finish(cluster, job, name)

    metadata = train("cluster", master, "train.pods.shm=1Gi")
    assert metadata["step"] == 2
    said = capfd.readouterr().out
    assert "[train] created PyTorchJob plsc-train-cluster-" in said
    assert [line for line in said.splitlines() if "  loss 3." in line and "epoch" not in line] == [
        "[train] step 1/2  loss 3.1",
        "[train] step 2/2  loss 3.0",
    ]
    assert "torchrun says" not in said
    assert seen["has_lease"]
    assert not storage.exists(lease.lease_uri(seen["config"]))
    pod = seen["job"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["requests"]["cpu"] == "3"
    arguments = pod["containers"][0]["args"]
    assert arguments[:2] == ["experiment=tiny", 'run_id="cluster"']
    dataset = ShardSet.read(f"{place.store}/runs/shards/preprocess/index.json").uri
    assert arguments[-2:] == [f'train.dataset_uri="{dataset}"', f'store_uri="{place.store}"']


def trained(place, run_id):
    config = place.config(run_id, "train.max_steps=2", "train.ranks=1")
    config.train.dataset_uri = f"{place.store}/runs/shards/preprocess/index.json"
    run(config)


def test_a_job_whose_ranks_stopped_for_want_of_the_lease_is_replaced(cluster, train, place):
    jobs = []

    def master(job, name):
        jobs.append(job["metadata"]["uid"])
        cluster.run_pod(name)
        if len(jobs) > 1:
            trained(place, "orphaned")
        finish(cluster, job, name)

    assert train("orphaned", master)["step"] == 2
    assert len(set(jobs)) == 2


def test_jobs_that_always_miss_the_lease_are_not_made_for_ever(cluster, train):
    def master(job, name):
        cluster.run_pod(name)
        finish(cluster, job, name)

    with pytest.raises(TrainError, match=r"4 jobs stopped before the end.*lease_s=300"):
        train("deaf", master)
    assert len(cluster.made("create", "pytorchjobs")) == 4


def test_the_reason_that_a_rank_left_is_raised_as_it_was(cluster, train, place):
    failure = doorway.failure_uri(place.config("reason"), "train")
    storage.write_bytes(failure, json.dumps({"error": "StorageError", "message": "old"}).encode())

    def master(job, name):
        cluster.run_pod(name)
        left = {"error": "ShardError", "message": "shard 3 is damaged"}
        storage.write_bytes(failure, json.dumps(left).encode())
        finish(cluster, job, name, 3)

    with pytest.raises(ShardError, match=r"^shard 3 is damaged$"):
        train("reason", master)


def test_the_reason_of_an_earlier_try_is_not_taken_for_that_of_this_one(cluster, train, place):
    failure = doorway.failure_uri(place.config("memory"), "train")
    storage.write_bytes(failure, json.dumps({"error": "StorageError", "message": "old"}).encode())

    def master(job, name):
        cluster.run_pod(name)
        finish(cluster, job, name, 137, reason="OOMKilled")

    with pytest.raises(TrainError, match=r"(?s)OOMKilled.*no checkpoint was written yet") as error:
        train("memory", master)
    assert not isinstance(error.value, RankKilledError)
    report = storage.read_bytes(f"{place.store}/runs/memory/train/failed-pods.txt").decode()
    assert "OOMKilled" in report


def test_a_job_that_cannot_start_is_not_blamed_on_the_ranks(cluster, train, place):
    def master(job, name):
        cluster.wait_pod(name, "InvalidImageName", "no such thing")

    with pytest.raises(TrainError, match=r"(?s)master-0.*InvalidImageName.*no such thing"):
        train("image", master)
    cluster.until(lambda: not cluster.store.find("pytorchjobs"))
    assert not storage.exists(lease.lease_uri(place.config("image")))


def test_what_the_cluster_refuses_stays_an_error_of_the_cluster(cluster, train):
    cluster.missing.add("pytorchjobs")
    with pytest.raises(ClusterError, match="pytorchjobs"):
        train("refused", lambda *_: None)


def test_auto_is_a_pytorchjob_on_a_cluster_and_torchrun_elsewhere(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert isinstance(chosen(configured(), None), Torchrun)
    assert isinstance(chosen(configured("train.backend=pytorchjob"), None), PyTorchJob)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert isinstance(chosen(configured(), None), PyTorchJob)
    assert isinstance(chosen(configured("train.backend=torchrun"), None), Torchrun)


def test_the_launcher_needs_no_torch_and_a_laptop_no_kubernetes():
    script = (
        "import sys; sys.modules['torch'] = sys.modules['kubernetes'] = None;"
        "import plsc.train.step; del sys.modules['kubernetes'];"
        "import plsc.train.backends.pytorchjob"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
