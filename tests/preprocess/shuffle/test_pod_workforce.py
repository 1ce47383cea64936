"""Map and reduce by the pods of Indexed Jobs: the same bytes as on one machine, whatever dies."""

import logging

import pytest

from plsc.errors import ConfigError, RecordError
from plsc.preprocess.shuffle import planning, pod_workforce
from plsc.preprocess.stage import run
from tests.indexed_pods import pretend_cluster
from tests.preprocess.rows import digests_of, good_parts, settings, write_parts

PODS = ("preprocess.pods.count=2", "preprocess.pods.image=registry/plsc-preprocess:1")


@pytest.fixture
def small_items(monkeypatch):
    monkeypatch.setattr(planning, "_SMALLEST_ITEM_BYTES", 5_000)
    monkeypatch.setattr(pod_workforce, "_LOOK_EVERY_S", 0.0)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    write_parts(folder / "data", good_parts())
    return digests_of(run(settings(folder)))


def container_of(manifest):
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("processes", [1, 2])
def test_pods_make_the_data_set_of_one_machine(
    tmp_path, expected, small_items, monkeypatch, caplog, processes
):
    caplog.set_level(logging.INFO)
    write_parts(tmp_path / "data", good_parts())
    manifests = pretend_cluster(monkeypatch)
    dataset = run(settings(tmp_path, *PODS, f"preprocess.workers={processes}"))
    assert digests_of(dataset) == expected
    map_job, reduce_job = manifests
    assert {"map", "2"} < set(container_of(map_job)["command"])
    assert "reduce" in container_of(reduce_job)["command"]
    assert container_of(map_job)["image"] == "registry/plsc-preprocess:1"
    assert map_job["spec"]["completions"] == map_job["spec"]["parallelism"] == 2
    mib = processes * (512 + 192) + 192
    assert container_of(map_job)["resources"] == {
        "requests": {"cpu": str(processes), "memory": f"{mib}Mi"},
        "limits": {"memory": f"{mib}Mi"},
    }
    assert "map: an Indexed Job of 2 pods" in caplog.text
    assert "items are done" in caplog.text
    assert not list((tmp_path / "store").rglob("work/**/*.json"))


def test_a_pod_that_is_killed_is_tried_again_and_goes_on(
    tmp_path, expected, small_items, monkeypatch
):
    write_parts(tmp_path / "data", good_parts())
    killed = []

    def kill_first(pod):
        if pod.index == 0 and pod.attempt == 0:
            pod.kill()
            killed.append(pod)

    pretend_cluster(monkeypatch, on_start=kill_first)
    assert digests_of(run(settings(tmp_path, *PODS))) == expected
    assert [pod.exit_code for pod in killed] == [137, 137]


def test_what_a_pod_cannot_read_is_the_error_of_the_step_and_is_not_tried_again(
    tmp_path, small_items, monkeypatch, caplog
):
    write_parts(tmp_path / "data", good_parts() | {"x.tsv.gz": [b"\x1f\x8b\x08\x00cut off"]})
    tries = []
    pretend_cluster(monkeypatch, on_start=lambda pod: tries.append((pod.index, pod.attempt)))
    with pytest.raises(RecordError, match=r"x\.tsv\.gz: expected"):
        run(settings(tmp_path, *PODS))
    assert {attempt for _, attempt in tries} == {0}
    assert "exit code 3" in caplog.text, "the failed index is named, with its last lines"


def test_a_pod_that_dies_again_and_again_fails_the_step_and_its_work_is_kept(
    tmp_path, expected, small_items, monkeypatch
):
    from plsc.cluster.indexed_job import JobFailedError

    write_parts(tmp_path / "data", good_parts())
    with monkeypatch.context() as patch:
        patch.setattr(pod_workforce, "_LOOK_EVERY_S", 0.0)
        pretend_cluster(patch, on_start=lambda pod: pod.kill() if pod.index == 1 else None)
        with pytest.raises(JobFailedError, match=r"index 1: exit code 137"):
            run(settings(tmp_path, *PODS, "preprocess.pods.max_restarts=1"))
    pretend_cluster(monkeypatch)
    assert list((tmp_path / "store").rglob("work/**/map/*.item.json"))
    assert digests_of(run(settings(tmp_path, *PODS, "preprocess.pods.max_restarts=1"))) == expected


def test_the_same_run_asks_for_the_same_job_and_a_new_beginning_for_another(
    tmp_path, small_items, monkeypatch
):
    from plsc.cluster.indexed_job import JobFailedError

    write_parts(tmp_path / "data", good_parts())

    def asked(*overrides):
        with monkeypatch.context() as patch:
            manifests = pretend_cluster(patch, on_start=lambda pod: pod.kill())
            with pytest.raises(JobFailedError):
                run(settings(tmp_path, *PODS, "preprocess.pods.max_restarts=0", *overrides))
            return manifests[0]

    first = asked()
    assert asked() == first
    assert asked("preprocess.memory_mib=100") != first
    again = asked()
    assert again != first
    attempt = "plsc/attempt"
    annotations = [one["spec"]["template"]["metadata"]["annotations"] for one in (first, again)]
    assert annotations[0].pop(attempt) != annotations[1].pop(attempt)


def test_an_image_that_is_not_named_is_a_config_error(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.delenv("PLSC_WORKER_IMAGE", raising=False)
    write_parts(tmp_path / "data", good_parts())
    with pytest.raises(ConfigError, match=r"preprocess\.pods\.image is empty.*PLSC_WORKER_IMAGE"):
        run(settings(tmp_path, "preprocess.pods.count=2"))
