"""The Indexed Jobs that preprocess and evaluate create are valid, whatever is configured."""

import pytest

from tests.manifests.jobs import shared_job
from tests.manifests.test_overlays import check


@pytest.mark.parametrize(("step", "part"), [("preprocess", "map"), ("evaluate", "embed")])
@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["count=64", "cpu=4", "memory=8Gi", "max_restarts=0", "queue=team", "priority_class=low"],
        ["gpus=1", "tolerations=['gpu:NoSchedule']", "node_selector=['pool=gpu']"],
    ],
)
def test_what_a_step_creates_is_valid(step: str, part: str, settings: list[str]) -> None:
    overrides = [f"{step}.pods.{one}" for one in settings]
    job = shared_job(step, part, *overrides)
    check([job])
    spec = job["spec"]
    # Kubernetes' own rules, which are in no schema.
    assert spec["completionMode"] == "Indexed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    containers = {container["name"] for container in spec["template"]["spec"]["containers"]}
    for rule in spec["podFailurePolicy"]["rules"]:
        assert rule.get("onExitCodes", {}).get("containerName", "worker") in containers
    assert len(f"{job['metadata']['name']}-{spec['completions']}-abcde") <= 63
