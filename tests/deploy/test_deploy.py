"""Deploy against a real Triton: versions, canary, going back, clients that notice nothing."""

import hashlib
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pipelines.services import Services
from plsc import doorway, storage
from plsc.artifacts.deployment import Deployment
from plsc.artifacts.index import Payload, Provenance, now
from plsc.artifacts.onnx_model import OnnxModel
from plsc.artifacts.report import BenchmarkResult, Report
from plsc.client import Client, GrpcTransport
from plsc.conf.schema import PipelineConfig
from plsc.deploy import rollout, stage
from plsc.deploy.canary import Canary
from plsc.deploy.control import Control
from plsc.deploy.repository import ModelFolder, model_config, served_version
from plsc.deploy.step import run_step
from plsc.errors import DeployError, StorageError
from plsc.verification import Benchmark, write_benchmark
from tests.deploy import graphs
from tests.deploy.exports import assert_serves, config_for, objects

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]


def test_versions_follow_each_other_and_the_newest_are_kept(
    services: Services, name: str, bucket_uri: str
) -> None:
    first = stage.run(config_for(name, bucket_uri, 1, "deploy.keep_versions=2"))
    assert (first.version, first.previous_version) == (1, None)
    assert first.endpoint == services.triton_url
    assert first.canary_max_abs <= 1e-5
    assert_serves(services.triton_url, name, 1)

    again = stage.run(config_for(name, bucket_uri, 1, "deploy.keep_versions=2"))
    assert (again.version, again.previous_version) == (2, 1)
    config = config_for(name, bucket_uri, 2, "deploy.keep_versions=2")
    third = stage.run(config)
    assert (third.version, third.previous_version) == (3, 2)
    assert objects(name) == ["2/model.onnx", "3/model.onnx", "config.pbtxt"]
    assert objects(f"{name}-candidate") == []
    assert_serves(services.triton_url, name, 2)
    assert Deployment.read(doorway.index_uri(config, "deploy")) == third


def test_clients_notice_nothing_while_versions_change(
    services: Services, name: str, bucket_uri: str
) -> None:
    """Threads ask without a pause while three versions follow each other: each answer is right."""
    stage.run(config_for(name, bucket_uri, 1))
    images = graphs.random_images(3)
    expected = {
        str(version): graphs.embed(graphs.graph(seed), images)
        for version, seed in [(1, 1), (2, 2), (3, 3)]
    }
    done = threading.Event()
    errors: list[str] = []
    answers: dict[str, int] = dict.fromkeys(expected, 0)

    def ask() -> None:
        transport = GrpcTransport(services.triton_url, timeout_s=30)
        served = transport.describe(name)
        while not done.is_set():
            try:
                embeddings, version = transport.infer(served, images)
                np.testing.assert_allclose(embeddings, expected[version], atol=1e-5)
                answers[version] += 1
            except Exception as error:  # noqa: BLE001  whatever it is, a client saw it
                errors.append(repr(error))
        transport.close()

    def encode() -> None:
        with Client.connect(services.triton_url, model=name) as client:
            while not done.is_set():
                try:
                    found = client.encode(images)
                    assert any(np.allclose(found, right, atol=1e-5) for right in expected.values())
                except Exception as error:  # noqa: BLE001  whatever it is, a client saw it
                    errors.append(repr(error))

    threads = [threading.Thread(target=target) for target in (ask, ask, encode)]
    for thread in threads:
        thread.start()
    try:
        stage.run(config_for(name, bucket_uri, 2))
        stage.run(config_for(name, bucket_uri, 3))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert min(answers.values()) > 0
    assert sum(answers.values()) > 100


def test_a_switch_that_fails_leaves_the_old_version_serving(
    services: Services, name: str, bucket_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.run(config_for(name, bucket_uri, 1))
    before = ModelFolder("s3://plsc/models", name).read_config()
    check = Canary.check

    def fail_after_the_switch(self: Canary, transport: object, model: str, version: int) -> float:
        if model == name:
            raise DeployError("canary: another arithmetic")
        return check(self, transport, model, version)

    monkeypatch.setattr(Canary, "check", fail_after_the_switch)
    config = config_for(name, bucket_uri, 2)
    with pytest.raises(DeployError, match="another arithmetic; version 1 serves on"):
        stage.run(config)
    assert objects(name) == ["1/model.onnx", "config.pbtxt"]
    assert ModelFolder("s3://plsc/models", name).read_config() == before
    assert not storage.exists(doorway.index_uri(config, "deploy"))
    assert_serves(services.triton_url, name, 1)


def test_a_first_version_that_fails_leaves_nothing(
    services: Services, name: str, bucket_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Control.load

    def refuse(self: Control, model: str) -> None:
        if model == name:
            raise DeployError("refused")
        load(self, model)

    monkeypatch.setattr(Control, "load", refuse)
    with pytest.raises(DeployError, match="refused; no version serves, as before"):
        stage.run(config_for(name, bucket_uri, 1))
    assert objects(name) == []


def test_an_interrupted_switch_is_taken_back(
    services: Services, name: str, bucket_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.run(config_for(name, bucket_uri, 1))
    load = Control.load
    interrupted = []

    def interrupt(self: Control, model: str) -> None:
        if model == name and not interrupted:
            interrupted.append(model)
            raise KeyboardInterrupt
        load(self, model)

    monkeypatch.setattr(Control, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stage.run(config_for(name, bucket_uri, 2))
    assert objects(name) == ["1/model.onnx", "config.pbtxt"]
    assert_serves(services.triton_url, name, 1)


def test_a_graph_that_computes_something_else_never_reaches_clients(
    services: Services, name: str, bucket_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.run(config_for(name, bucket_uri, 1))
    write = ModelFolder.write_version

    def write_another(self: ModelFolder, version: int, path: Path, sha256: str) -> None:
        path.write_bytes(graphs.graph(99))
        write(self, version, path, hashlib.sha256(graphs.graph(99)).hexdigest())

    monkeypatch.setattr(ModelFolder, "write_version", write_another)
    with pytest.raises(DeployError, match=r"(?s)canary: .*differ.*canary_tolerance"):
        stage.run(config_for(name, bucket_uri, 2))
    assert objects(name) == ["1/model.onnx", "config.pbtxt"]
    assert objects(f"{name}-candidate") == []
    assert_serves(services.triton_url, name, 1)


def test_a_graph_that_triton_does_not_load_is_told_in_its_words(
    services: Services, name: str, bucket_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_backend(*arguments: object) -> bytes:
        return model_config(*arguments).replace(b"onnxruntime", b"no-such-backend")

    monkeypatch.setattr(rollout, "model_config", without_backend)
    with pytest.raises(DeployError, match=r"(?s)does not load.*no-such-backend"):
        stage.run(config_for(name, bucket_uri, 1))
    assert objects(name) == objects(f"{name}-candidate") == []


def test_a_version_written_half_is_never_loaded(
    services: Services, name: str, bucket_uri: str
) -> None:
    stage.run(config_for(name, bucket_uri, 1))
    storage.write_bytes(f"s3://plsc/models/{name}/2/model.onnx", graphs.graph(2)[:1000])
    with Control(services.triton_url, timeout_s=30) as control:
        control.load(name)
        assert control.is_ready(name, 1)
        assert not control.is_ready(name, 2)
    assert_serves(services.triton_url, name, 1)
    assert stage.run(config_for(name, bucket_uri, 3)).version == 3


def test_leftovers_of_a_killed_deploy_do_no_harm(
    services: Services, name: str, bucket_uri: str
) -> None:
    """Killed between commit and load: the next deploy takes the number after."""
    stage.run(config_for(name, bucket_uri, 1))
    folder = ModelFolder("s3://plsc/models", name)
    model = OnnxModel.read(graphs.export(f"{bucket_uri}/killed", graphs.graph(2)))
    storage.write_bytes(f"{folder.uri}/2/model.onnx", graphs.graph(2))
    folder.write_config(model_config(name, 2, model, {}))
    storage.write_bytes(f"{folder.uri}-candidate/1/model.onnx", b"half")
    storage.write_bytes(f"{folder.uri}-candidate/config.pbtxt", b"nonsense")
    assert stage.run(config_for(name, bucket_uri, 3)).version == 3
    assert_serves(services.triton_url, name, 3)


def test_clients_can_read_where_the_model_comes_from(
    services: Services, name: str, bucket_uri: str
) -> None:
    config = config_for(name, bucket_uri, 1)
    _write_report(config, [0.2, 0.3])
    deployment = stage.run(config)
    assert deployment.threshold == pytest.approx(0.25)
    from tritonclient.grpc import InferenceServerClient

    found = InferenceServerClient(services.triton_url).get_model_config(name).config
    parameters = {key: value.string_value for key, value in found.parameters.items()}
    assert parameters == {
        "run_id": "run-1",
        "experiment": "tiny",
        "sha256": hashlib.sha256(graphs.graph(1)).hexdigest(),
        "image_size": "16",
        "embedding_size": "8",
        "threshold": "0.25",
    }
    with Client.connect(services.triton_url, model=name) as client:
        image = graphs.random_images(1)[0]
        similarity, is_same = client.verify(image, image)
    assert similarity == pytest.approx(1, abs=1e-5)
    assert is_same


def test_the_canary_sends_benchmark_images_where_there_are_some(
    services: Services, name: str, bucket_uri: str
) -> None:
    import io

    from PIL import Image

    images = []
    for pixels in graphs.random_images(6, size=20):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        images.append(buffer.getvalue())
    benchmark = Benchmark("glyph_cross", images, np.array([True, False, True]))
    write_benchmark(f"{bucket_uri}/data/tiny", benchmark)
    assert stage.run(config_for(name, bucket_uri, 1)).canary_images == 22


def test_an_altered_graph_is_refused(services: Services, name: str, bucket_uri: str) -> None:
    config = config_for(name, bucket_uri, 1)
    storage.write_bytes(f"{bucket_uri}/export-1/model.onnx", graphs.graph(2))
    with pytest.raises(DeployError, match="changed after its export"):
        stage.run(config)
    assert objects(name) == []


def test_a_graph_that_is_none_is_refused(services: Services, name: str, bucket_uri: str) -> None:
    uri = graphs.export(f"{bucket_uri}/junk", b"no graph at all")
    config = config_for(name, bucket_uri, 1, f"deploy.onnx_uri={uri}")
    with pytest.raises(DeployError, match="onnxruntime does not run the graph"):
        stage.run(config)


def test_a_graph_with_another_embedding_size_is_refused(
    services: Services, name: str, bucket_uri: str
) -> None:
    uri = graphs.export(f"{bucket_uri}/wide", graphs.graph(1, dim=9))
    config = config_for(name, bucket_uri, 1, f"deploy.onnx_uri={uri}")
    with pytest.raises(DeployError, match=r"should give float32 \[n, 8\], gives float32 \[16, 9\]"):
        stage.run(config)


def test_a_server_that_is_not_there_is_told(bucket_uri: str) -> None:
    config = config_for(
        "nobody", bucket_uri, 1, "deploy.server='127.0.0.1:9'", "deploy.timeout_s=1"
    )
    with pytest.raises(
        DeployError, match=r"no Triton server is ready at 127\.0\.0\.1:9.*services-up"
    ):
        stage.run(config)


def test_a_missing_graph_is_told(services: Services, bucket_uri: str) -> None:
    config = config_for("nobody", bucket_uri, 1, f"deploy.onnx_uri={bucket_uri}/none.json")
    with pytest.raises(StorageError, match=r"none\.json: there is no such object"):
        stage.run(config)


def test_the_step_returns_the_endpoint_and_fills_the_metadata(
    services: Services, name: str, bucket_uri: str, tmp_path: Path
) -> None:
    uri = graphs.export(f"{bucket_uri}/export", graphs.graph(1))
    storage.download(uri, tmp_path / "onnx")
    metadata: dict[str, object] = {}
    overrides = (
        f"store_uri={bucket_uri} deploy.model_name={name} deploy.repository_uri=s3://plsc/models"
    )
    try:
        endpoint = run_step(
            "tiny", overrides, "", "run-9", onnx_path=str(tmp_path / "onnx"), metadata=metadata
        )
    finally:
        logging.getLogger().handlers.clear()
    assert endpoint == services.triton_url
    assert metadata["endpoint"] == endpoint
    assert metadata["model"] == name
    assert metadata["version"] == 1


def test_the_doorway_ends_with_the_exit_code(services: Services, bucket_uri: str) -> None:
    command = [sys.executable, "-m", "plsc.deploy", "experiment=tiny", "run_id=r"]
    arguments = [f"store_uri={bucket_uri}", f"deploy.onnx_uri={bucket_uri}/none.json"]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 3, done.stderr
    assert "StorageError" in done.stdout


def test_hostile_names_are_data_not_syntax() -> None:
    model = OnnxModel(
        provenance=Provenance(run_id="r", experiment="e", created_at=now(), seconds=0.0, config={}),
        graph=Payload(uri="u", size_bytes=1, sha256="0" * 64),
        opset=20,
        image_size=16,
        embedding_size=8,
        parity_max_abs=0.0,
    )
    hostile = '"} version_policy { all {} } #\n\\ \x00 é'
    content = model_config(hostile, 7, model, {hostile: hostile})
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    parsed = text_format.Parse(content, ModelConfig())
    assert parsed.name == hostile
    assert parsed.parameters[hostile].string_value == hostile
    assert served_version(content, "uri") == 7
    with pytest.raises(DeployError, match="no Triton model configuration"):
        served_version(b"{ nonsense", "uri")


def _write_report(config: PipelineConfig, thresholds: list[float]) -> None:
    results = [
        BenchmarkResult(
            name=f"b{number}",
            num_pairs=10,
            accuracy=0.9,
            accuracy_std=0.0,
            threshold=threshold,
            tar_at_far=[],
            roc=[],
            pixel_baseline_accuracy=0.5,
        )
        for number, threshold in enumerate(thresholds)
    ]
    Report(
        provenance=Provenance(
            run_id="run-1", experiment="tiny", created_at=now(), seconds=0.0, config={}
        ),
        step=1,
        images_per_s=1.0,
        benchmarks=results,
        page=Payload(uri="page", size_bytes=1, sha256="0" * 64),
    ).write(config.evaluate.report_uri)
