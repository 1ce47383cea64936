"""Work that is shared out: whose error a failed job becomes."""

from pathlib import Path

import pytest

from plsc.cluster import indexed_job, reasons
from plsc.cluster.indexed_job import SharedWork, run_shared
from plsc.cluster.jobs import JobFailedError
from plsc.conf.schema import PodsConfig
from plsc.errors import PlscError, RecordError
from tests.kubernetes_api import KubernetesApi


@pytest.mark.parametrize(
    ("has_started", "expected"), [(True, RecordError), (False, JobFailedError)]
)
def test_only_a_pod_that_ran_can_have_left_its_reason(
    cluster: KubernetesApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_started: bool,
    expected: type[PlscError],
) -> None:
    def run_to_end(*_: object, **__: object) -> None:
        raise JobFailedError("no node for it", has_started=has_started, index="0")

    monkeypatch.setattr(indexed_job, "run_to_end", run_to_end)
    with pytest.raises(RecordError), reasons.left_behind(str(tmp_path), 0):
        raise RecordError("of an earlier try")
    work = SharedWork(
        step="preprocess",
        part="map",
        run_id="run-1",
        attempt="1",
        pods=PodsConfig(image="a:1", cpu="1", memory="1Gi"),
        count=1,
        command=["python"],
        work_uri=str(tmp_path),
        report_uri=str(tmp_path / "report.txt"),
    )
    with pytest.raises(expected):
        run_shared(work, on_tick=lambda: None)
