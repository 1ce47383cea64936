import re
from dataclasses import replace
from typing import Any

import pytest

from plsc.cluster.job_request import SPEC_HASH, JobRequest, label_value
from plsc.cluster.place import Place
from tests.cluster_api.conftest import OWNER

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def test_the_name_follows_from_run_step_part_and_what_is_done(mapping: JobRequest) -> None:
    assert re.fullmatch(r"plsc-preprocess-map-0a1b2c3d-[0-9a-f]{6}", mapping.name)
    assert replace(mapping).name == mapping.name
    assert replace(mapping, part="").name.startswith("plsc-preprocess-0a1b2c3d-")
    others = [
        replace(mapping, run_id="0a1b2c3d-another"),
        replace(mapping, part="reduce"),
        replace(mapping, manifest={"spec": {**mapping.manifest["spec"], "completions": 3}}),
        replace(mapping, manifest={**mapping.manifest, "metadata": {"annotations": {"a": "b"}}}),
    ]
    assert len({one.name for one in [mapping, *others]}) == 5


@pytest.mark.parametrize("run_id", ["Nightly_Run.2026", "run-1", "x" * 200, "2026-11-23T02:00", ""])
def test_every_run_id_gives_a_name_and_labels_that_kubernetes_takes(
    mapping: JobRequest, run_id: str
) -> None:
    request = replace(mapping, run_id=run_id)
    assert _NAME.fullmatch(request.name)
    assert len(request.name) <= 48
    for value in request.labels.values():
        assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", value), value
        assert len(value) <= 63


def test_a_label_is_the_text_itself_where_it_may_be() -> None:
    assert label_value("0a1b2c3d-4e5f") == "0a1b2c3d-4e5f"
    assert label_value("a b") != label_value("a-b")


def test_the_object_has_owner_labels_and_hash_and_the_pods_have_the_labels(
    training: JobRequest,
) -> None:
    made = training.object(Place("step-1", "plsc", OWNER))
    assert (made["apiVersion"], made["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert made["metadata"]["ownerReferences"] == [OWNER]
    assert made["metadata"]["annotations"] == {SPEC_HASH: training.spec_hash}
    assert training.labels.items() <= made["metadata"]["labels"].items()
    for replica in made["spec"]["pytorchReplicaSpecs"].values():
        assert replica["template"]["metadata"]["labels"] == training.labels
    original: Any = training.manifest["spec"]["pytorchReplicaSpecs"]["Master"]
    assert "metadata" not in original["template"], "the request is not changed"


def test_outside_of_a_run_nobody_owns_the_job(mapping: JobRequest) -> None:
    assert mapping.object(Place("", "plsc"))["metadata"]["ownerReferences"] == []


def test_pods_are_counted_and_found_by_their_controller_s_labels(
    training: JobRequest, mapping: JobRequest
) -> None:
    assert (training.num_pods, mapping.num_pods) == (2, 2)
    assert training.pod_labels == {"training.kubeflow.org/job-name": training.name}
    assert mapping.pod_labels == {"job-name": mapping.name}
