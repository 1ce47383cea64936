"""The client: any image in, embeddings of one version out, over servers that come and go."""

import io
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.services import Services
from plsc import storage
from plsc.artifacts.onnx_model import OnnxModel
from plsc.client import Client, GrpcTransport, ServedModel
from plsc.deploy.control import Control
from plsc.deploy.repository import ModelFolder, model_config
from plsc.errors import BadResponse, ServerUnavailable, ServingError
from plsc.transforms import NotAnImageError, decode_resized
from tests.deploy import graphs


class FakeServer:
    """A server in this process: embeddings are the image's mean color, shifted by the version."""

    def __init__(self, address: str = "fake:1", **settings: object) -> None:
        self.address = address
        self.served = ServedModel(
            **{
                "name": "m",
                "version": "1",
                "image_size": 8,
                "embedding_size": 3,
                "max_batch_size": 4,
                "threshold": 0.9,
            }
            | settings
        )
        self.batches: list[int] = []
        self.is_up = True
        self.is_closed = False
        self.names = ["m"]
        self.before_infer = lambda: None

    def models(self) -> list[str]:
        self._respond()
        return self.names

    def describe(self, model: str) -> ServedModel:
        self._respond()
        return self.served

    def infer(self, model: ServedModel, images: np.ndarray) -> tuple[np.ndarray, str]:
        self.before_infer()
        self._respond()
        if images.shape[1] != self.served.image_size:
            raise ServingError("unexpected shape")
        self.batches.append(len(images))
        return self.embed(images), self.served.version

    def embed(self, images: np.ndarray) -> np.ndarray:
        color = images.mean(axis=(1, 2), dtype=np.float32) + np.float32(self.served.version)
        return color / np.linalg.norm(color, axis=1, keepdims=True)

    def close(self) -> None:
        self.is_closed = True

    def _respond(self) -> None:
        if not self.is_up:
            raise ServerUnavailable(f"{self.address} is down")


def _encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_bytes_paths_and_pixels_of_any_size_give_the_same(tmp_path: Path) -> None:
    pixels = graphs.random_images(1, size=20)[0]
    content = _encoded(pixels)
    (tmp_path / "a.png").write_bytes(content)
    server = FakeServer()
    client = Client([server])
    found = client.encode([content, tmp_path / "a.png", str(tmp_path / "a.png"), pixels])
    assert found.shape == (4, 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, server.embed(np.stack([decode_resized(content, 8)] * 4)))


def test_many_images_are_sent_in_batches_and_come_back_in_order() -> None:
    server = FakeServer()
    images = graphs.random_images(10, size=8)
    np.testing.assert_array_equal(Client([server]).encode(images), server.embed(images))
    assert server.batches == [4, 4, 2]


def test_no_images_give_no_embeddings() -> None:
    assert Client([FakeServer()]).encode([]).shape == (0, 3)


@pytest.mark.parametrize("one", [b"", "a.jpg", Path("a.jpg"), np.zeros((8, 8, 3), np.uint8)])
def test_one_image_in_place_of_a_list_is_told(one: object) -> None:
    with pytest.raises(TypeError, match="a list of"):
        Client([FakeServer()]).encode(one)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"not an image", "image 1: not a readable image"),
        (b"", "image 1: not a readable image"),
        (_encoded(graphs.random_images(1)[0])[:100], "image 1: "),
        (np.zeros((8, 8, 4), np.uint8), r"image 1: expected pixels as uint8 .* \[8, 8, 4\]"),
        (np.zeros((8, 8, 3), np.float32), "image 1: expected pixels as uint8"),
    ],
)
def test_what_is_no_image_is_told_with_its_place(image: object, message: str) -> None:
    server = FakeServer()
    with pytest.raises(NotAnImageError, match=message):
        Client([server]).encode([_encoded(graphs.random_images(1)[0]), image])
    assert server.batches == []


def test_a_path_that_is_no_image_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NotAnImageError, match=r"notes\.txt: not a readable image"):
        Client([FakeServer()]).encode([tmp_path / "notes.txt"])
    with pytest.raises(FileNotFoundError, match=r"nothing\.jpg"):
        Client([FakeServer()]).encode([tmp_path / "nothing.jpg"])


def test_verify_judges_by_the_served_threshold() -> None:
    red, green = np.zeros((2, 8, 8, 3), np.uint8)
    red[..., 0] = green[..., 1] = 200
    client = Client([FakeServer()])
    assert client.verify(red, red) == (pytest.approx(1.0), True)
    similarity, is_same = client.verify(red, green)
    assert similarity < 0.1
    assert not is_same
    assert client.verify(red, green, threshold=-1)[1]


def test_verify_without_any_threshold_is_told() -> None:
    client = Client([FakeServer(threshold=None)])
    image = graphs.random_images(1)[0]
    with pytest.raises(ServingError, match="served without a threshold"):
        client.verify(image, image)


def test_embeddings_of_two_versions_are_never_mixed() -> None:
    """The version changes, with another image size, between the batches of one call."""
    server = FakeServer()
    client = Client([server])

    def change_once() -> None:
        if server.batches == [4]:
            server.served = FakeServer(version="2", image_size=6).served
            server.batches.append(0)

    server.before_infer = change_once
    images = graphs.random_images(10, size=6)
    np.testing.assert_array_equal(client.encode(images), server.embed(images))
    assert server.batches == [4, 0, 4, 4, 2]


def test_a_version_that_never_settles_is_told() -> None:
    server = FakeServer()
    client = Client([server])
    counter = iter(range(2, 1000))

    def change() -> None:
        server.served = FakeServer(version=str(next(counter))).served

    server.before_infer = change
    with pytest.raises(ServingError, match="changed 5 times"):
        client.encode(graphs.random_images(1))


def test_calls_go_round_and_pass_over_a_dead_server() -> None:
    servers = [FakeServer(f"fake:{number}") for number in range(3)]
    client = Client(servers, model="m")
    for _ in range(6):
        client.encode(graphs.random_images(1))
    assert [len(server.batches) for server in servers] == [2, 2, 2]
    servers[1].is_up = False
    for _ in range(6):
        client.encode(graphs.random_images(1))
    assert len(servers[1].batches) == 2
    assert sum(len(server.batches) for server in servers) == 12


def test_all_servers_dead_is_told_with_each_reason() -> None:
    servers = [FakeServer(f"fake:{number}") for number in range(2)]
    client = Client(servers, model="m")
    for server in servers:
        server.is_up = False
    with pytest.raises(ServerUnavailable, match=r"(?s)no server answers.*fake:.*fake:"):
        client.encode(graphs.random_images(1))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.ones((1, 4), np.float32), r"should answer float32 \[1, 3\], answered float32 \[1, 4\]"),
        (np.ones((1, 3), np.float64), "answered float64"),
        (np.full((1, 3), np.nan, np.float32), "not of length 1"),
        (np.zeros((1, 3), np.float32), "not of length 1"),
    ],
)
def test_what_is_no_embedding_is_refused(answer: np.ndarray, message: str) -> None:
    server = FakeServer()
    server.embed = lambda _: answer
    with pytest.raises(BadResponse, match=message):
        Client([server]).encode(graphs.random_images(1))


def test_the_model_may_be_left_out_where_there_is_one() -> None:
    server = FakeServer()
    server.names = ["m", "m-candidate"]
    assert Client([server]).model == "m"
    server.names = ["a", "b"]
    with pytest.raises(ServingError, match=r"holds a, b: say which"):
        Client([server])
    server.names = []
    with pytest.raises(ServerUnavailable, match="holds no model"):
        Client([server])


def test_a_closed_client_says_so() -> None:
    server = FakeServer()
    with Client([server]) as client:
        pass
    assert server.is_closed
    client.close()
    with pytest.raises(ServingError, match="closed"):
        client.encode(graphs.random_images(1))


def test_nothing_at_the_address_is_told_at_once() -> None:
    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:9 did not"):
        Client.connect("127.0.0.1:9", model="m", timeout_s=5)
    with pytest.raises(ValueError, match="expected host:port"):
        Client.connect(" , ")


def test_importing_the_client_brings_no_torch_and_no_hydra() -> None:
    code = (
        "import sys, plsc.client;"
        "print({'torch', 'hydra', 'omegaconf', 'boto3', 'kfp'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- against a real server ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(services: Services) -> str:
    folder = ModelFolder("s3://plsc/models", "for-clients")
    content = graphs.graph(5)
    storage.write_bytes(f"{folder.uri}/1/model.onnx", content)
    index = OnnxModel.read(graphs.export("s3://plsc/tests/for-clients", content))
    folder.write_config(model_config(folder.name, 1, index, {"threshold": "0.99"}))
    with Control(services.triton_url, timeout_s=60) as control:
        control.load(folder.name)
        yield folder.name
        control.unload(folder.name)
    folder.remove()


@pytest.mark.services
def test_a_server_that_accepts_and_never_answers_is_told() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        transport = GrpcTransport(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3)
        with pytest.raises(ServerUnavailable, match="no answer within"):
            transport.describe("glyphs")
        transport.close()


class TestWithTriton:
    def test_more_images_than_one_request_takes(self, services: Services, model: str) -> None:
        images = graphs.random_images(150)
        with Client.connect(services.triton_url, model=model) as client:
            found = client.encode(images)
        np.testing.assert_allclose(found, graphs.embed(graphs.graph(5), images), atol=1e-5)

    def test_a_dead_server_beside_is_passed_over(self, services: Services, model: str) -> None:
        servers = f"127.0.0.1:9, {services.triton_url}"
        with Client.connect(servers, model=model, timeout_s=10) as client:
            for _ in range(4):
                assert client.encode(graphs.random_images(1)).shape == (1, 8)

    def test_an_unknown_model_is_told(self, services: Services, model: str) -> None:
        with pytest.raises(ServerUnavailable, match="no-such-model"):
            Client.connect(services.triton_url, model="no-such-model")

    def test_too_many_in_one_request_and_a_wrong_shape_are_refused_and_the_server_lives(
        self, services: Services, model: str
    ) -> None:
        transport = GrpcTransport(services.triton_url, timeout_s=10)
        served = transport.describe(model)
        with pytest.raises(ServingError, match="batch-size must be <= 64"):
            transport.infer(served, graphs.random_images(65))
        with pytest.raises(ServingError, match="unexpected shape"):
            transport.infer(served, graphs.random_images(1, size=17))
        assert transport.infer(served, graphs.random_images(64))[0].shape == (64, 8)
        transport.close()

    def test_the_command_line_encodes_and_verifies(
        self, services: Services, model: str, tmp_path: Path
    ) -> None:
        paths = []
        for number, pixels in enumerate(graphs.random_images(2)):
            paths.append(str(tmp_path / f"{number}.png"))
            Path(paths[-1]).write_bytes(_encoded(pixels))

        def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "plsc.client", *arguments, "--model", model]
            return subprocess.run(command, capture_output=True, text=True, check=False)

        plain = ask("encode", *paths)
        assert plain.returncode == 0, plain.stderr
        assert "8 dimensions, length 1.0000" in plain.stdout
        rows = json.loads(ask("encode", "--json", *paths).stdout)["embeddings"]
        expected = graphs.embed(graphs.graph(5), graphs.random_images(2))
        np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-5)
        assert ask("verify", paths[0], paths[0]).stdout.startswith("the same: similarity +1.0000")
        assert ask("verify", *paths, "--threshold", "2").stdout.startswith("different")
        (tmp_path / "notes.txt").write_text("hello")
        failed = ask("encode", str(tmp_path / "notes.txt"))
        assert failed.returncode == 1
        assert failed.stderr.startswith("error: ")
        assert "Traceback" not in failed.stderr
