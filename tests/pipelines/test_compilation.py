from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format

from components import images
from pipelines import __main__ as command
from pipelines.compilation import COMPILED, compile_pipeline, parse
from pipelines.end_to_end import SECRET, SECRET_KEYS
from plsc import conf
from plsc.stages import STEPS


@pytest.fixture(scope="module")
def compiled() -> str:
    return compile_pipeline(conf.experiments())


@pytest.fixture(scope="module")
def spec(compiled: str) -> dict:
    return parse(compiled)[0]


@pytest.fixture(scope="module")
def kubernetes(compiled: str) -> dict:
    return parse(compiled)[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_the_committed_pipeline_is_fresh(compiled: str) -> None:
    assert COMPILED.read_text() == compiled, "run `make compile` and commit pipelines/plsc.yaml"


def test_the_form_has_four_parameters_and_a_list_of_experiments(spec: dict) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters.keys() == {"experiment", "overrides", "data_uri", "resume_run"}
    assert parameters["experiment"]["literals"] == conf.experiments()
    assert parameters["experiment"]["defaultValue"] == "glyphs"


def test_the_pipeline_is_a_plain_diamond(spec: dict) -> None:
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks.keys() == set(STEPS)
    before = {name: set(task.get("dependentTasks", [])) for name, task in tasks.items()}
    assert before == {
        "preprocess": set(),
        "train": {"preprocess"},
        "evaluate": {"train"},
        "export": {"train"},
        "gate": {"evaluate"},
        "deploy": {"gate", "export"},
    }
    for task in tasks.values():
        assert not task.keys() & {"triggerPolicy", "parameterIterator", "artifactIterator"}


def test_every_task_gets_the_run_id_bare_which_is_all_that_a_cluster_resolves(spec: dict) -> None:
    for task in spec["root"]["dag"]["tasks"].values():
        given = task["inputs"]["parameters"]["run_id"]
        assert given == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}


def test_only_the_gate_and_deploy_are_never_cached_and_only_train_is_tried_again(
    spec: dict,
) -> None:
    tasks = spec["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert cached == set(STEPS) - {"gate", "deploy"}
    assert {name for name, task in tasks.items() if "retryPolicy" in task} == {"train"}


def test_artifacts_have_names_that_say_what_they_are(spec: dict) -> None:
    found = {
        name: {
            (key, artifact["artifactType"]["schemaTitle"].removeprefix("system."))
            for key, artifact in spec["components"][f"comp-{name}"]
            .get("outputDefinitions", {})
            .get("artifacts", {})
            .items()
        }
        for name in STEPS
    }
    assert found == {
        "preprocess": {("dataset", "Dataset"), ("data_report", "HTML")},
        "train": {("model", "Model"), ("metrics", "Metrics")},
        "evaluate": {
            ("results", "Artifact"),
            ("metrics", "Metrics"),
            ("roc", "ClassificationMetrics"),
            ("verification_report", "HTML"),
        },
        "export": {("onnx", "Model")},
        "gate": {("gate_report", "Markdown")},
        "deploy": set(),
    }


def test_every_task_asks_for_resources_and_gets_credentials_only_by_secret(
    spec: dict, kubernetes: dict, compiled: str
) -> None:
    for name, executor in spec["deploymentSpec"]["executors"].items():
        resources = executor["container"]["resources"]
        assert resources["resourceCpuRequest"]
        assert resources["resourceMemoryRequest"]
        assert "env" not in executor["container"]
        (secret,) = kubernetes[name]["secretAsEnv"]
        assert secret["secretName"] == SECRET
        assert {pair["envVar"] for pair in secret["keyToEnv"]} == set(SECRET_KEYS)
    assert "pip install" not in compiled


def test_images_are_tagged_and_a_registry_goes_in_front(spec: dict) -> None:
    def found(spec: dict) -> dict[str, str]:
        executors = spec["deploymentSpec"]["executors"]
        return {name: each["container"]["image"] for name, each in executors.items()}

    assert found(spec) == {
        f"exec-{step}": images.ref("deploy" if step == "gate" else step) for step in STEPS
    }
    there = parse(compile_pipeline(["glyphs"], registry="here.test/team/"))[0]
    assert found(there)["exec-train"] == f"here.test/team/{images.ref('train')}"


def test_an_image_of_no_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="'gate' is no stage"):
        images.ref("gate")


@pytest.mark.parametrize("place", ["spec", "kubernetes"])
def test_an_unknown_field_is_refused(compiled: str, place: str) -> None:
    spec, platforms = yaml.safe_load_all(compiled)
    if place == "spec":
        spec["root"]["dag"]["tasks"]["train"]["retryPolcy"] = {}
    else:
        executors = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        executors["exec-train"]["secretsAsEnv"] = []
    with pytest.raises(json_format.ParseError):
        parse(yaml.safe_dump_all([spec, platforms]))


def test_the_command_compiles_into_a_file(tmp_path: Path, compiled: str) -> None:
    path = tmp_path / "pipeline.yaml"
    assert command.main(["compile", "--output", str(path)]) == 0
    assert path.read_text() == compiled


def test_the_version_of_the_images_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert version("plsc") == images.VERSION
