"""The house keeps its order: one vocabulary, light imports, thin components, no dumping grounds."""

import ast
import dataclasses
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

from components import images
from plsc import conf
from plsc.artifacts.index import Artifact
from plsc.conf.schema import PipelineConfig
from plsc.stages import STAGES, STEPS

ROOT = Path(__file__).parents[1]
DUMPING_GROUNDS = {"utils", "helpers", "common", "misc", "tools", "core", "base", "types", "util"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STAGE_CODE = {f"plsc.{room}" for room in (*STAGES, "datasets", "models", "entry")}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def folders(path: Path) -> set[str]:
    return {
        child.name for child in path.iterdir() if child.is_dir() and child.name != "__pycache__"
    }


def test_stages_bear_the_same_names_everywhere() -> None:
    config_groups = {field.name for field in dataclasses.fields(PipelineConfig)}
    assert folders(ROOT / "components") == set(STAGES)
    servers = {"triton", "object-store"}
    assert folders(ROOT / "images") == set(STAGES) | servers
    assert set(images.NAMES) == set(STAGES) | servers | {"train-launch"}
    assert set(STAGES) <= folders(ROOT / "plsc")
    assert set(STAGES) <= set(PROJECT["optional-dependencies"])
    assert set(STAGES) <= config_groups
    assert set(STEPS) - {"gate"} == set(STAGES)
    for stage in STAGES:
        for name in ("component.py", "README.md"):
            assert (ROOT / "components" / stage / name).is_file(), f"{stage} has no {name}"
        for name in ("stage.py", "step.py", "__main__.py"):
            assert (ROOT / "plsc" / stage / name).is_file(), f"{stage} has no {name}"


def test_nothing_is_named_after_what_it_is_not() -> None:
    parts = {
        part for path in modules("plsc") for part in path.relative_to(ROOT).with_suffix("").parts
    }
    assert not parts & DUMPING_GROUNDS


@pytest.mark.parametrize("module", ["plsc", "plsc.doorway", "plsc.conf", "plsc.stages"])
def test_light_modules_load_no_heavy_library(module: str) -> None:
    code = (
        f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not set(loaded.stdout.split()) & {"torch", "kfp", "onnx", "onnxruntime", "matplotlib"}


def test_compiling_and_running_load_no_stage_code() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules("components")
    ]
    names += ["pipelines.compilation", "pipelines.runner", "pipelines.local", "pipelines.kind"]
    names += ["pipelines.cluster.connection", "pipelines.cluster.runs"]
    code = "import sys; [__import__(name) for name in sys.argv[1:]]; print(*sys.modules)"
    names = [name.removesuffix(".__init__") for name in names]
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *names],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.split()
    assert "torch" not in loaded
    allowed = {"plsc.datasets", "plsc.datasets.recipes"}  # names and sizes only
    found = {
        name for name in loaded if any(f"{name}.".startswith(f"{room}.") for room in STAGE_CODE)
    }
    assert found <= allowed


@pytest.mark.parametrize("step", STEPS)
def test_off_a_cluster_a_step_loads_nothing_of_it(step: str) -> None:
    module = "plsc.evaluate.gate_step" if step == "gate" else f"plsc.{step}.step"
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert "kubernetes" not in loaded
    assert ("torch" in loaded) == (step in {"evaluate", "export"}), "the others start in a moment"


def test_plsc_never_imports_kfp_or_the_folders_above_it() -> None:
    for path in modules("plsc"):
        for module in imported(ast.parse(path.read_text())):
            assert module.partition(".")[0] not in {"kfp", "components", "pipelines"}, path


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_component_is_one_import_and_one_call() -> None:
    found = 0
    for path in modules("components"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.decorator_list:
                found += 1
                assert_is_thin(node, path)
    assert found == len(STEPS)


def assert_is_thin(function: ast.FunctionDef, path: Path) -> None:
    docstring, statement, call = function.body
    assert isinstance(docstring, ast.Expr), path
    assert isinstance(docstring.value, ast.Constant), path
    assert isinstance(statement, ast.ImportFrom), path
    assert (statement.module or "").startswith("plsc."), path
    assert isinstance(call, ast.Expr | ast.Return), path
    assert isinstance(call.value, ast.Call), path
    forbidden = (ast.If, ast.IfExp, ast.For, ast.BinOp, ast.BoolOp)
    assert not [node for node in ast.walk(function) if isinstance(node, forbidden)], path
    (decorator,) = function.decorator_list
    assert isinstance(decorator, ast.Call), path
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in decorator.keywords}
    optional = {"task_config_passthroughs"}
    assert given.keys() - optional == {"base_image", "install_kfp_package"}, path
    assert given["install_kfp_package"] == "False", path


def test_no_artifact_has_a_field_that_its_header_claims() -> None:
    for path in modules("plsc/artifacts"):
        importlib.import_module(f"plsc.artifacts.{path.stem}")
    kinds = Artifact.__subclasses__()
    assert len(kinds) >= len(STAGES)
    for kind in kinds:
        assert not kind.model_fields.keys() & {"kind", "format"}, kind


@pytest.mark.parametrize("experiment", conf.experiments())
def test_every_experiment_composes(experiment: str) -> None:
    assert conf.compose(experiment, "run_id=check").name


def test_no_other_list_of_pins_exists() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not [
        name for name in listed.stdout.split() if Path(name).name.startswith("requirements")
    ]


@pytest.fixture(scope="module")
def import_graph() -> grimp.ImportGraph:
    return grimp.build_graph("plsc", include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("step", STEPS)
def test_what_a_step_imports_is_installed_in_its_image(
    step: str, import_graph: grimp.ImportGraph
) -> None:
    entry, stage = (
        ("plsc.evaluate.gate_step", "deploy") if step == "gate" else (f"plsc.{step}.step", step)
    )
    reached = import_graph.find_upstream_modules(entry)
    external = {name for name in reached if not name.startswith("plsc")} - sys.stdlib_module_names
    distributions = packages_distributions() | {"google": ["protobuf"]}
    needed = {normalized(distributions[name][0]) for name in external if name in distributions}
    extras = PROJECT["optional-dependencies"]
    named = [*PROJECT["dependencies"], *extras[stage], *extras["cluster"]]  # as in images/
    installed = {normalized(name.partition("[")[0]) for name in named}
    brought_by_these = {"omegaconf", "pyyaml", "botocore", "urllib3"}
    brought_by_these |= {"grpcio", "protobuf", "markupsafe"}
    only_for_types = {"mypy-boto3-s3"}
    assert needed - installed - brought_by_these - only_for_types == set()


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
