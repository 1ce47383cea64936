"""How a build is told of the package index, and what is said when it cannot begin."""

import configparser
import os
from pathlib import Path

import pytest

from images import build, engine, index


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose only pip settings are in the file that is returned."""
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    return file


def settings(text: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return dict(parser["global"])


def test_the_build_uses_the_index_that_the_host_uses(host: Path) -> None:
    host.write_text(
        "[global]\nindex-url = https://index.test/simple\nextra-index-url =\n"
        "    https://one.test/simple\n    https://two.test/simple\ncache-dir = /nowhere\n"
    )
    found = settings(index.pip_conf(has_bundle=True))
    assert found["index-url"] == "https://index.test/simple"
    assert found["extra-index-url"].split() == [
        "https://one.test/simple",
        "https://two.test/simple",
    ]
    assert found["cert"] == index.BUNDLE
    assert "cache-dir" not in found


def test_a_variable_wins_over_the_file(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host.write_text("[global]\nindex-url = https://file.test/simple\n")
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.test/simple")
    found = settings(index.pip_conf(has_bundle=False))
    assert found["index-url"] == "https://variable.test/simple"
    assert "cert" not in found or found["cert"] != index.BUNDLE


def test_the_certificates_are_those_that_pip_is_told_of(
    host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificates")
    monkeypatch.setenv("PIP_CERT", str(bundle))
    assert index.ca_bundle() == bundle


def test_the_secrets_are_files_that_are_gone_after_the_build(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.write_text("[global]\nindex-url = https://user:secret@index.test/simple\n")
    monkeypatch.delenv("PIP_CONF", raising=False)
    with build.secrets() as arguments:
        (named,) = [each for each in arguments if each.startswith("id=pip-conf,src=")]
        path = Path(named.partition("src=")[2])
        assert "secret" in path.read_text()
        assert path.parent.stat().st_mode & 0o077 == 0, "for this user's eyes alone"
        assert not any("secret@" in each for each in arguments)
    assert not path.exists()


def test_a_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONF", "/nowhere/pip.conf")
    with (
        pytest.raises(engine.EngineError, match="PIP_CONF to name a file, found none at /nowhere"),
        build.secrets(),
    ):
        pass


def test_a_push_wants_to_know_where_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGISTRY", raising=False)
    with pytest.raises(engine.EngineError, match="expected REGISTRY"):
        build.push(["train"])


def test_an_image_is_named_by_registry_and_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY", "here.test/team")
    monkeypatch.setenv("TAG", "7")
    assert build.tag_of("train-launch") == "here.test/team/plsc-train-launch:7"


def test_a_daemon_that_is_named_and_silent_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\ncase $1 in version) echo 20.10.24;; *) exit 1;; esac\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    engine.client.cache_clear()
    try:
        with pytest.raises(engine.EngineError, match=r"nobody\.sock, found none"):
            engine.ready()
        assert not engine.is_ready()
    finally:
        engine.client.cache_clear()
