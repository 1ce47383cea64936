"""The way to KFP through a stand-in for kubectl, which really forwards."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines import __main__ as command
from pipelines.cluster import following
from pipelines.cluster.connection import connect
from pipelines.cluster.errors import UnavailableError
from pipelines.cluster.page import page
from pipelines.cluster.port_forward import PortForward
from pipelines.cluster.settings import Settings
from plsc.errors import ClusterError
from tests.pipelines.kfp_api import KfpApi, moment, serve, step

KUBECTL = f"""\
#!{sys.executable}
import os, socket, sys, threading

with open(os.environ["ASKED"], "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
if "service/nothing" in sys.argv:
    sys.exit('Error from server (NotFound): services "nothing" not found')
here, there = sys.argv[-1].split(":")
server = socket.create_server(("127.0.0.1", int(here or 0)))
print(f"Forwarding from 127.0.0.1:{{server.getsockname()[1]}} -> {{there}}", flush=True)

def copy(source, target):
    while data := source.recv(1 << 16):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)

while True:
    near, _ = server.accept()
    print("Handling connection for " + here, flush=True)
    far = socket.create_connection(("127.0.0.1", int(os.environ["FORWARD_TO"])))
    for pair in ((near, far), (far, near)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in writes what it was asked."""
    path = tmp_path / "bin" / "kubectl"
    path.parent.mkdir()
    path.write_text(KUBECTL)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    for name in [name for name in os.environ if name.startswith(("KFP_", "KF_"))]:
        monkeypatch.delenv(name)
    return tmp_path / "asked"


@pytest.fixture
def api(asked: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpApi]:
    monkeypatch.setattr(following, "POLL_S", 0.01)
    with serve() as api:
        monkeypatch.setenv("FORWARD_TO", api.url.rpartition(":")[2])
        yield api


def forwards() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if "port-forward" in child.cmdline()
    ]


def test_a_run_is_followed_through_it_and_nothing_stays(
    api: KfpApi,
    asked: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    api.add("runs", "run_id", {})
    api.moments = [moment("SUCCEEDED", step("train", "SUCCEEDED", 1, 9))]
    monkeypatch.setenv("KFP_HOST", "kubectl")
    assert command.main(["follow", "--state-dir", str(tmp_path), "r1"]) == 0
    assert asked.read_text().split() == [
        "-n", "kubeflow", "port-forward", "--address", "127.0.0.1", "service/ml-pipeline-ui", ":80",
    ]  # fmt: skip
    assert not forwards()
    told = capsys.readouterr().out
    assert "http://localhost:8080/#/runs/details/r1" in told
    assert "kubectl -n kubeflow port-forward service/ml-pipeline-ui 8080:80" in told
    assert "127.0.0.1" not in told, "that way ends with the command"


def test_the_pages_are_not_where_the_api_is() -> None:
    assert "-n team port-forward service/ml-pipeline-ui 8080:80" in page(
        "kubectl://team/ml-pipeline", "runs"
    )


def test_a_way_that_is_lost_is_opened_again_at_the_same_port(api: KfpApi, asked: Path) -> None:
    with connect(Settings(host="kubectl://team/ml-pipeline")) as there:
        (child,) = forwards()
        child.kill()
        child.wait()
        health = there.health.healthz_service_get_healthz
        with pytest.raises(UnavailableError, match="cannot be reached"):
            there.ask("its health", health)
        assert there.ask("its health", health).multi_user is False
    first, second = asked.read_text().splitlines()
    assert first.endswith("service/ml-pipeline :8888")
    assert second.endswith(f"service/ml-pipeline {there.host.rpartition(':')[2]}:8888")
    assert not forwards()


def test_it_ends_with_its_parent_however_that_ends(api: KfpApi, tmp_path: Path) -> None:
    code = "from pipelines.cluster.port_forward import PortForward; import time\n"
    code += "PortForward('kubectl'); print('open', flush=True); time.sleep(60)"
    parent = psutil.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], stdout=-1, text=True
    )
    assert parent.stdout.readline() == "open\n"
    (child,) = parent.children()
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    gone, alive = psutil.wait_procs([child], timeout=10)
    assert gone
    assert not alive


def test_what_kubectl_says_is_told(asked: Path) -> None:
    with pytest.raises(ClusterError, match=r'namespace kubeflow: .*"nothing" not found'):
        PortForward("kubectl://kubeflow/nothing")
    assert not forwards()


def test_a_missing_kubectl_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="no kubectl on the PATH"):
        PortForward("kubectl")
