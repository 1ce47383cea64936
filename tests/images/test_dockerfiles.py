"""The rules of images/README.md, on every Dockerfile."""

import re
from pathlib import Path

import pytest

from plsc.stages import STAGES

IMAGES = Path(__file__).parents[2] / "images"


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def targets(path: Path) -> list[list[tuple[str, str]]]:
    """The instructions of each part that begins with FROM and ends as an image."""
    parts: list[list[tuple[str, str]]] = []
    for instruction in instructions(path):
        if instruction[0] == "FROM":
            parts.append([])
        if parts:
            parts[-1].append(instruction)
    return [part for part in parts if any(name == "CMD" for name, _ in part)]


@pytest.fixture(params=STAGES)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return IMAGES / request.param / "Dockerfile"


def test_nothing_is_pulled_but_the_base_image(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    assert "syntax=" not in text
    assert not re.search(r"\w+\.(io|com|org|net|dev)\b|https?://|latest", text)
    bases = [value for name, value in instructions(dockerfile) if name == "FROM"]
    assert bases[0].startswith("${BASE_IMAGE}")
    assert all(base.startswith("plsc AS ") for base in bases[1:])
    assert ("ARG", "BASE_IMAGE=python:3.11-slim-bookworm") in instructions(dockerfile)


def test_every_image_ends_as_a_number_with_a_command_and_no_entry_point(dockerfile: Path) -> None:
    for target in targets(dockerfile):
        assert [value for name, value in target if name == "USER"][-1] == "10001:10001"
        assert "ENTRYPOINT" not in [name for name, _ in target]
        assert target[-1][0] == "CMD"
        assert target[-1][1].startswith('["python", ')


def test_everything_is_installed_by_the_one_list_of_pins_and_kfp_is_there(dockerfile: Path) -> None:
    stage = dockerfile.parent.name
    expected = [".", '".[train]"'] if stage == "train" else [f'".[{stage}]"']
    installs = [
        value.partition("pip install ")[2]
        for target in targets(dockerfile)
        for name, value in target
        if name == "RUN" and "pip install" in value
    ]
    assert installs == [f"--no-cache-dir -c constraints.txt {what} kfp" for what in expected]


def test_what_is_copied_is_let_through_to_the_build(dockerfile: Path) -> None:
    allowed = (IMAGES.parent / ".dockerignore").read_text().splitlines()
    for name, value in instructions(dockerfile):
        if name == "COPY":
            for source in value.split()[:-1]:
                assert (IMAGES.parent / source).exists()
                assert f"!{source}" in allowed


def test_train_has_a_launcher_and_a_worker_which_is_the_default() -> None:
    bases = [
        value for name, value in instructions(IMAGES / "train" / "Dockerfile") if name == "FROM"
    ]
    assert [base.partition(" AS ")[2] for base in bases] == ["plsc", "launcher", "worker"]
