"""The rules of images/README.md, on every Dockerfile; needs no daemon."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from images.packages import lists
from plsc.stages import STAGES

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
FOLDERS = sorted(path.parent.name for path in IMAGES.glob("*/Dockerfile"))
SHARED = ("base", "lists", "core", "package")
MOUNTS = (
    "--mount=type=secret,id=pip-conf,target=/etc/pip.conf",
    "--mount=type=secret,id=ca-bundle,target=/etc/ssl/certs/ca-certificates.crt",
    "--mount=type=cache,target=/root/.cache/pip",
)


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def parts(path: Path) -> dict[str, list[tuple[str, str]]]:
    """What follows each FROM, by its name; the last one has none, or its own."""
    found: dict[str, list[tuple[str, str]]] = {}
    for instruction in instructions(path):
        if instruction[0] == "FROM":
            _, _, name = instruction[1].partition(" AS ")
            found[name] = current = []
        if found:
            current.append(instruction)
    return found


def installs(part: list[tuple[str, str]]) -> list[str]:
    return [value for name, value in part if name == "RUN" and "pip install" in value]


def stage_parts(name: str) -> dict[str, list[tuple[str, str]]]:
    return parts(IMAGES / name / "Dockerfile")


def last(part: list[tuple[str, str]], instruction: str) -> str:
    return [value for name, value in part if name == instruction][-1]


@pytest.fixture(params=FOLDERS)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return IMAGES / request.param / "Dockerfile"


def test_there_is_one_per_stage_and_one_per_server() -> None:
    assert set(FOLDERS) == {*STAGES, "triton", "object-store"}


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    files = [str(IMAGES / name / "Dockerfile") for name in FOLDERS]
    done = subprocess.run([hadolint, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_nothing_is_pulled_but_the_base_image(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    assert "syntax=" not in text
    assert not re.search(r"\w+\.(io|com|org|net|dev)/|https?://|:latest", text)
    assert ("ARG", "BASE_IMAGE=python:3.11-slim-bookworm") in instructions(dockerfile)
    first, *others = [value for name, value in instructions(dockerfile) if name == "FROM"]
    assert first.startswith("${BASE_IMAGE}")
    assert {base.partition(" AS ")[0] for base in others} <= {*SHARED, "torch"}


def test_every_image_ends_as_a_number_with_a_command_and_no_entry_point(dockerfile: Path) -> None:
    images = [part for part in parts(dockerfile).values() if part[-1][0] == "CMD"]
    assert len(images) == (2 if dockerfile.parent.name == "train" else 1)
    for part in images:
        assert last(part, "USER") == "10001:10001"
        assert "ENTRYPOINT" not in [name for name, _ in part]
        assert part[-1][1].startswith('["')
        labels = last(part, "LABEL")
        for key in ("title", "version", "revision", "source"):
            assert f"org.opencontainers.image.{key}=" in labels


def test_everything_is_installed_by_a_list_of_pins_with_the_optional_secrets(
    dockerfile: Path,
) -> None:
    found = [command for part in parts(dockerfile).values() for command in installs(part)]
    assert found
    for command in found:
        if "--no-index" not in command:
            assert all(mount in command for mount in MOUNTS)
            assert re.search(r"pip install -c (/opt/plsc/)?constraints\.txt ", command)


def test_the_stages_share_what_they_have_in_common() -> None:
    found = [stage_parts(stage) for stage in STAGES]
    for shared in SHARED:
        assert all(each[shared] == found[0][shared] for each in found)
    with_torch = [each["torch"] for each in found if "torch" in each]
    assert len(with_torch) == 3
    assert all(each == with_torch[0] for each in with_torch)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_installs_its_own_list_on_top_of_the_shared_ones(stage: str) -> None:
    found = stage_parts(stage)
    image = found["worker" if stage == "train" else ""]
    parent = "torch" if "torch" in found else "core"
    assert image[0][1].partition(" AS ")[0] == parent
    (install,) = installs(image)
    assert f"-r /{stage}.txt" in install
    assert image.index(("RUN", install)) < image.index(
        ("COPY", "--from=package /package /usr/local/lib/python3.11/site-packages")
    ), "the library changes most often, and comes last"


def test_the_launcher_has_no_torch_and_the_worker_is_the_default() -> None:
    found = stage_parts("train")
    assert list(found) == [*SHARED, "launcher", "torch", "worker"]
    assert found["launcher"][0][1].startswith("core ")


def test_the_lists_hold_every_requirement_of_the_stages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = lists(project)
    assert {*project["dependencies"], "kfp", "kubernetes"} == set(found["core"])
    assert found["torch"] == ["torch"]
    for stage in STAGES:
        asked = set(project["optional-dependencies"][stage])
        assert asked <= {*found["core"], *found["torch"], *found[stage]}
        assert "torch" not in found[stage]
    assert set(found["launcher"]) <= set(found["train"])
    assert set(project["optional-dependencies"]["hdfs"]) <= set(found["preprocess"])


def test_what_is_copied_is_let_through_to_the_build(dockerfile: Path) -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for name, value in instructions(dockerfile):
        if name == "COPY" and "--from=" not in value:
            for source in [word for word in value.split()[:-1] if not word.startswith("--")]:
                assert (ROOT / source).exists()
                assert any(f"!{folder}" in allowed for folder in (source, source.split("/")[0]))
