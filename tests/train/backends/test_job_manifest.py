"""The PyTorchJob of a training: every setting is where the operator, or torchrun, looks for it."""

import copy

import pytest
from torch.distributed.run import config_from_args, parse_args

from plsc.cluster.templates import read_template
from plsc.errors import ConfigError
from plsc.train.backends.job_manifest import TEMPLATE, job_manifest
from tests.train.backends.manifests import ARGUMENTS, IMAGE, TASK, configured


def made(*overrides, task=None):
    (template,) = read_template(TEMPLATE)
    return job_manifest(template, configured(*overrides), ARGUMENTS, task)


def replicas(job):
    return {
        role: replica["replicas"] for role, replica in job["spec"]["pytorchReplicaSpecs"].items()
    }


def pod_of(job, role="Master"):
    return job["spec"]["pytorchReplicaSpecs"][role]["template"]["spec"]


def container_of(job, role="Master"):
    (container,) = pod_of(job, role)["containers"]
    return container


def environment_of(job):
    return {entry["name"]: entry.get("value") for entry in container_of(job)["env"]}


@pytest.mark.parametrize(
    ("ranks", "pods", "counts", "ranks_per_pod"),
    [
        (1, 1, {"Master": 1}, "1"),
        (4, 1, {"Master": 1}, "4"),
        (2, 2, {"Master": 1, "Worker": 1}, "1"),
        (32, 4, {"Master": 1, "Worker": 3}, "8"),
    ],
)
def test_ranks_are_dealt_to_one_master_and_the_workers(ranks, pods, counts, ranks_per_pod):
    job = made(f"train.ranks={ranks}", f"train.pods.count={pods}")
    assert replicas(job) == counts  # the operator wants no Worker rather than none of them
    assert job["spec"]["nprocPerNode"] == ranks_per_pod  # a string: the CRD refuses a number
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        assert replica["restartPolicy"] == "OnFailure"


def test_master_and_workers_are_the_same_but_share_nothing():
    job = made("train.pods.count=2")
    assert pod_of(job) == pod_of(job, "Worker")
    pod_of(job)["containers"][0]["args"].append("x")
    assert pod_of(job) != pod_of(job, "Worker")


def test_the_ranks_get_what_they_cannot_know_from_their_own_environment():
    job = made()
    container = container_of(job)
    assert container["name"] == "pytorch"
    assert container["image"] == IMAGE
    assert container["command"] == ["torchrun", "-m", "plsc.train"]
    assert container["args"] == [*ARGUMENTS, 'store_uri="s3://b"']
    assert environment_of(job) == {
        "OMP_NUM_THREADS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PLSC_LAUNCHED": "1",
        "PLSC_LEASE_URI": "s3://b/runs/r1/train/lease.json",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "110",
        "PET_RDZV_CONF": "timeout=1800",
    }


def test_torchrun_ends_its_ranks_before_the_kubelet_ends_torchrun():
    job = made("train.pods.grace_s=600")
    assert pod_of(job)["terminationGracePeriodSeconds"] == 600
    assert environment_of(job)["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "590"
    assert environment_of(made("train.pods.grace_s=0"))["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "1"


def test_limits_of_time_and_of_restarts_are_those_of_the_configuration():
    job = made(
        "train.ranks=4", "train.pods.count=4", "train.pods.max_restarts=5",
        "train.pods.deadline_s=3600", "train.pods.keep_s=60",
    )  # fmt: skip
    assert job["spec"]["runPolicy"] == {
        "cleanPodPolicy": "None",
        "ttlSecondsAfterFinished": 60,
        "activeDeadlineSeconds": 3600,
        "backoffLimit": 21,  # the operator fails the job with the restart that reaches it
    }
    assert made("train.pods.max_restarts=0")["spec"]["runPolicy"]["backoffLimit"] == 1
    assert made()["spec"]["runPolicy"]["backoffLimit"] == 6


def test_torchrun_waits_for_its_peers_for_longer_than_the_launcher(monkeypatch):
    environment = environment_of(
        made("train.pods.schedule_timeout_s=3600", "train.pods.image_timeout_s=600")
    )
    for name in ("PET_RDZV_CONF", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"):
        monkeypatch.setenv(name, environment[name])
    config, _, _ = config_from_args(parse_args(["-m", "plsc.train"]))
    assert int(config.rdzv_configs["timeout"]) > 3600 + 600


def test_kubernetes_expands_nothing_in_what_the_ranks_are_given():
    (template,) = read_template(TEMPLATE)
    config = configured("store_uri='s3://$(HOME)'")
    container = container_of(job_manifest(template, config, ["name=a$(HOME)b$"]))
    assert container["args"] == ["name=a$$(HOME)b$$", 'store_uri="s3://$$(HOME)"']
    (uri,) = [one["value"] for one in container["env"] if one["name"] == "PLSC_LEASE_URI"]
    assert uri.startswith("s3://$$(HOME)/")


def test_what_the_task_asks_for_reaches_the_pods():
    job = made("train.pods.count=2", task=TASK)
    for role in ("Master", "Worker"):
        pod, container = pod_of(job, role), container_of(job, role)
        assert container["resources"]["limits"] == {"nvidia.com/gpu": "4", "memory": "64Gi"}
        assert container["resources"]["requests"]["cpu"] == "16"
        assert pod["nodeSelector"] == {"pool": "gpu"}
        assert pod["tolerations"] == TASK["tolerations"]
        assert {"name": "scratch", "mountPath": "/scratch"} in container["volumeMounts"]
    assert "S3_ENDPOINT" in environment_of(job)


def test_a_variable_of_the_task_does_not_take_the_place_of_ours():
    task = {"env": [{"name": "PLSC_LEASE_URI", "value": "x"}, {"name": "MINE", "value": "y"}]}
    names = [entry["name"] for entry in container_of(made(task=task))["env"]]
    assert names.count("PLSC_LEASE_URI") == 1
    assert environment_of(made(task=task))["PLSC_LEASE_URI"].startswith("s3://")
    assert environment_of(made(task=task))["MINE"] == "y"


def test_the_configuration_wins_over_the_task():
    job = made(
        "train.pods.gpus=2", "train.pods.memory=9Gi", "train.pods.node_selector=['pool=mine']",
        task=TASK,
    )  # fmt: skip
    assert container_of(job)["resources"]["limits"] == {"nvidia.com/gpu": "2", "memory": "9Gi"}
    assert pod_of(job)["nodeSelector"] == {"pool": "mine"}


def test_a_pod_with_fewer_gpus_than_ranks_is_refused():
    with pytest.raises(ConfigError, match=r"4 GPU\(s\) for 8 ranks: .* set train.pods.gpus=8"):
        made("train.ranks=8", task=TASK)


def test_without_an_image_the_setting_and_its_variable_are_named():
    with pytest.raises(ConfigError, match=r"train\.pods\.image is empty.*PLSC_WORKER_IMAGE"):
        made("train.pods.image=''")


def test_pods_have_no_token_and_no_rights():
    pod, container = pod_of(made()), container_of(made())
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_template_is_left_as_it_is():
    (template,) = read_template(TEMPLATE)
    before = copy.deepcopy(template)
    job_manifest(template, configured("train.ranks=4", "train.pods.count=2"), ARGUMENTS, TASK)
    assert template == before
