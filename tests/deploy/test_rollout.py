"""A rollout on several servers at once: two real Tritons, as pods that come and go."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pipelines.services import Services
from plsc.client import GrpcTransport
from plsc.deploy import stage
from plsc.deploy.canary import Canary
from plsc.deploy.control import Control
from plsc.deploy.repository import ModelFolder
from plsc.deploy.servers import Server
from plsc.errors import DeployError, PlscError
from tests.deploy.exports import assert_serves, config_for, objects

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]


class Several:
    """Servers by a script: ``present`` may be changed at any time."""

    def __init__(self, entrance: str) -> None:
        self.entrance = GrpcTransport(entrance, timeout_s=30)
        self.present: list[Server] = []
        self.gone: set[str] = set()
        self._made: list[Server] = []

    def make(self, address: str, uid: str = "") -> Server:
        control = Control(address, timeout_s=30)
        transport = GrpcTransport(address, timeout_s=30)
        server = Server(f"pod at {address}", uid or address, control, transport)
        self._made.append(server)
        return server

    def current(self) -> list[Server]:
        return list(self.present)

    def is_gone(self, server: Server) -> bool:
        return server.uid in self.gone

    def explain(self, server: Server, error: PlscError) -> str:
        return f"; that is {server.name}"

    def close(self) -> None:
        self.entrance.close()
        for server in self._made:
            server.control.close()
            server.transport.close()


@pytest.fixture
def several(
    services: Services, second_url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Several]:
    """Both Tritons, which the stage finds; the entrance is the first."""
    servers = Several(services.triton_url)
    servers.present = [servers.make(services.triton_url), servers.make(second_url)]

    @contextmanager
    def open_servers(*_: object) -> Iterator[Several]:
        yield servers

    monkeypatch.setattr(stage, "open_servers", open_servers)
    yield servers
    servers.make(second_url).control.unload(name)
    servers.close()


def _when_loading(
    monkeypatch: pytest.MonkeyPatch, address: str, name: str, act: Callable[[], None]
) -> None:
    """Let ``act`` happen before ``name`` is loaded at ``address``."""
    load = Control.load

    def first_act(self: Control, model: str) -> None:
        if (self.address, model) == (address, name):
            act()
        load(self, model)

    monkeypatch.setattr(Control, "load", first_act)


def test_every_server_gets_every_version(
    several: Several, services: Services, second_url: str, name: str, bucket_uri: str
) -> None:
    stage.run(config_for(name, bucket_uri, 1))
    for address in (services.triton_url, second_url):
        assert_serves(address, name, 1)
    deployment = stage.run(config_for(name, bucket_uri, 2))
    assert (deployment.version, deployment.previous_version) == (2, 1)
    for address in (services.triton_url, second_url):
        assert_serves(address, name, 2)
    assert objects(f"{name}-candidate") == []


def test_all_go_back_when_the_last_one_fails(
    several: Several,
    services: Services,
    second_url: str,
    name: str,
    bucket_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage.run(config_for(name, bucket_uri, 1))
    before = ModelFolder("s3://plsc/models", name).read_config()
    check = Canary.check

    def fail_there(self: Canary, transport: GrpcTransport, model: str, version: int) -> float:
        if (transport.address, model) == (second_url, name):
            assert_serves(services.triton_url, name, 2)
            raise DeployError("canary: another arithmetic")
        return check(self, transport, model, version)

    monkeypatch.setattr(Canary, "check", fail_there)
    words = f"another arithmetic; that is pod at {second_url}; version 1 serves on"
    with pytest.raises(DeployError, match=words):
        stage.run(config_for(name, bucket_uri, 2))
    monkeypatch.undo()
    for address in (services.triton_url, second_url):
        assert_serves(address, name, 1)
    assert objects(name) == ["1/model.onnx", "config.pbtxt"]
    assert ModelFolder("s3://plsc/models", name).read_config() == before


def test_all_go_back_when_clients_would_get_something_else(
    several: Several,
    services: Services,
    second_url: str,
    name: str,
    bucket_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage.run(config_for(name, bucket_uri, 1))
    several.entrance = GrpcTransport("127.0.0.1:9", timeout_s=0.2)
    with pytest.raises(DeployError, match=r"canary: .*127\.0\.0\.1:9.*version 1 serves on"):
        stage.run(config_for(name, bucket_uri, 2))
    for address in (services.triton_url, second_url):
        assert_serves(address, name, 1)


def test_a_server_that_comes_is_brought_along_and_one_that_goes_is_no_failure(
    several: Several,
    services: Services,
    second_url: str,
    name: str,
    bucket_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage.run(config_for(name, bucket_uri, 1))
    first, second = several.present
    lost = several.make("127.0.0.1:9", "lost")
    several.gone.add("lost")
    several.present = [lost, first]

    def appear() -> None:
        several.present = [first, second]

    _when_loading(monkeypatch, services.triton_url, name, appear)
    assert stage.run(config_for(name, bucket_uri, 2)).version == 2
    for address in (services.triton_url, second_url):
        assert_serves(address, name, 2)


def test_when_all_are_taken_away_nothing_is_taken_over(
    several: Several, name: str, bucket_uri: str
) -> None:
    several.present = []
    with pytest.raises(DeployError, match="no server is left: deploy again"):
        stage.run(config_for(name, bucket_uri, 1))
    assert objects(name) == []


def test_sigterm_in_the_middle_is_taken_back(
    several: Several,
    services: Services,
    second_url: str,
    name: str,
    bucket_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage.run(config_for(name, bucket_uri, 1))
    handler = signal.getsignal(signal.SIGTERM)
    _when_loading(monkeypatch, second_url, name, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as caught:
        stage.run(config_for(name, bucket_uri, 2))
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    monkeypatch.undo()
    for address in (services.triton_url, second_url):
        assert_serves(address, name, 1)
    assert objects(name) == ["1/model.onnx", "config.pbtxt"]


def test_a_deploy_that_was_killed_is_repaired_by_the_next(
    several: Several,
    services: Services,
    second_url: str,
    name: str,
    bucket_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed after one server of two: no time to go back at all."""
    stage.run(config_for(name, bucket_uri, 1))

    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        _when_loading(patch, second_url, name, die)
        patch.setattr("plsc.deploy.rollout.Rollout._undo", lambda *_: None)
        with pytest.raises(Killed):
            stage.run(config_for(name, bucket_uri, 2))
    assert_serves(services.triton_url, name, 2)
    assert_serves(second_url, name, 1)
    assert stage.run(config_for(name, bucket_uri, 3)).version == 3
    for address in (services.triton_url, second_url):
        assert_serves(address, name, 3)
