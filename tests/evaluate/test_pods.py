"""Benchmarks embedded by pods: the report is that of one process, number for number."""

import io

import numpy as np
import pytest

from plsc import storage
from plsc.errors import ArtifactError, BenchmarkError, ConfigError
from plsc.evaluate import stage
from plsc.evaluate.shares import Shares, Version
from plsc.verification import benchmark_uri, write_benchmark
from tests.indexed_pods import pretend_cluster
from tests.samples import patterns


@pytest.fixture
def started(monkeypatch):
    """A cluster whose jobs run as processes here; the manifests of the jobs that were started."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return pretend_cluster(monkeypatch)


def in_pods(config, count):
    config.evaluate.pods.count = count
    config.evaluate.pods.image = "registry/plsc-evaluate:1"
    config.evaluate.batch_size = 16
    return config


def test_the_report_of_pods_is_that_of_one_process(config, started):
    config.evaluate.batch_size = 16
    alone = stage.run(config)
    shared = stage.run(in_pods(config, 2))
    assert shared.benchmarks == alone.benchmarks
    assert len(started) == 1
    (container,) = started[0]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry/plsc-evaluate:1"
    assert container["resources"]["limits"]["memory"].endswith("Mi")
    assert container["resources"]["requests"]["cpu"] == "2"
    assert {"name": "OMP_NUM_THREADS", "value": "2"} in container["env"]
    assert not list(storage.list_objects(f"{config.store_uri}/runs/test-run/evaluate/embeddings/"))


def test_what_a_pod_cannot_read_is_the_error_of_the_step(config, started):
    uri = benchmark_uri(config.data_uri, "glyph_slant")
    storage.write_bytes(uri, b"no pickle at all")
    with pytest.raises(BenchmarkError, match=r"glyph_slant\.bin"):
        stage.run(in_pods(config, 2))


def test_what_was_embedded_of_another_benchmark_is_not_used(config, started, monkeypatch):
    count = config.evaluate.pods.count
    with monkeypatch.context() as patch:
        patch.setattr(stage, "make_section", lambda *given, **more: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            stage.run(in_pods(config, 2))
    name = config.evaluate.benchmarks[0]
    write_benchmark(config.data_uri, patterns(name, config.image_size, 40, seed=99))
    shared = stage.run(in_pods(config, 2))
    assert shared.benchmarks == stage.run(in_pods(config, count)).benchmarks


def test_a_benchmark_that_changes_while_pods_embed_is_refused(config, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    name = config.evaluate.benchmarks[0]
    other = patterns(name, config.image_size, 40, seed=99)
    manifests = pretend_cluster(
        monkeypatch, on_start=lambda pod: write_benchmark(config.data_uri, other)
    )
    with pytest.raises(BenchmarkError, match=f"{name}.bin: expected what evaluate began with"):
        stage.run(in_pods(config, 1))
    assert len(manifests) == 1


def test_pods_are_refused_where_there_is_no_cluster(config, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match=r"evaluate\.pods\.count=2 needs a Kubernetes cluster"):
        stage.run(in_pods(config, 2))


def shares(folder="/nowhere", *, num_pods=3, batch_size=8, **benchmarks):
    return Shares(
        folder_uri=str(folder),
        checkpoint="{}",
        data_uri=str(folder),
        benchmarks=benchmarks,
        flip=True,
        batch_size=batch_size,
        num_pods=num_pods,
        attempt="abc",
    )


@pytest.mark.parametrize("num_images", [1, 7, 8, 9, 16, 80, 81, 1000])
@pytest.mark.parametrize("num_pods", [1, 2, 3, 7])
def test_every_image_is_in_one_share_and_batches_are_whole(num_images, num_pods):
    cut = [shares(num_pods=num_pods).rows(num_images, index) for index in range(num_pods)]
    assert [row for rows in cut for row in rows] == list(range(num_images))
    assert all(rows.start % 8 == 0 for rows in cut if rows)


def lfw(folder):
    """Return the version of a benchmark, whatever it holds."""
    (folder / "lfw.bin").write_bytes(b"images")
    return Version.of(str(folder / "lfw.bin"))


def test_pieces_come_together_in_order(tmp_path):
    work = shares(tmp_path, lfw=lfw(tmp_path))
    embeddings = np.random.default_rng(0).standard_normal((50, 4), np.float32)
    for index in range(3):
        rows = work.rows(50, index)
        work.write("lfw", index, embeddings[rows.start : rows.stop])
    assert np.array_equal(work.gather("lfw", 50), embeddings)


def test_a_piece_that_is_not_what_it_should_be_is_refused(tmp_path):
    work = shares(tmp_path, num_pods=1, lfw=lfw(tmp_path))
    work.write("lfw", 0, np.zeros((49, 4), np.float32))
    with pytest.raises(ArtifactError, match=r"expected float32 \[50, D\], found float32 \[49, 4\]"):
        work.gather("lfw", 50)
    content = io.BytesIO()
    np.save(content, np.array([{"a": 1}], object), allow_pickle=True)
    for damaged in (content.getvalue(), b"", b"\x93NUMPY"):
        storage.write_bytes(work.piece_uri("lfw", 0), damaged)
        with pytest.raises(ArtifactError, match=r"lfw-00000\.npy: expected a \.npy file"):
            work.gather("lfw", 50)
