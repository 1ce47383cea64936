from pathlib import Path

import pytest

from plsc.cluster.templates import read_template
from plsc.errors import ClusterError


def test_the_repository_s_templates_are_read_and_share_nothing() -> None:
    (job,) = read_template("train/pytorchjob.yaml")
    assert job["kind"] == "PyTorchJob"
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert replicas["Master"] is not replicas["Worker"]
    replicas["Master"]["template"]["spec"]["containers"][0]["image"] = "changed"
    (again,) = read_template("train/pytorchjob.yaml")
    worker = replicas["Worker"]["template"]["spec"]["containers"][0]
    assert (
        worker
        == again["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    )


def test_an_image_has_them_where_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLSC_MANIFESTS", str(tmp_path))
    (tmp_path / "two.yaml").write_text("apiVersion: v1\nkind: A\n---\napiVersion: v1\nkind: B\n")
    assert [one["kind"] for one in read_template("two.yaml")] == ["A", "B"]
    with pytest.raises(ClusterError, match="set PLSC_MANIFESTS to the folder manifests/base"):
        read_template("none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ClusterError, match="is no YAML"):
        read_template("bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ClusterError, match="no Kubernetes object"):
        read_template("list.yaml")
