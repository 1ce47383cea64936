import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format

from components import images
from pipelines import __main__ as command
from pipelines.compilation import COMPILED, compile_pipeline, parse
from pipelines.end_to_end import SECRET, SECRET_KEYS, SETTINGS, SETTINGS_KEYS
from plsc import conf, doorway
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


def test_every_task_but_the_first_gets_the_run_id_bare_which_is_all_that_a_cluster_resolves(
    spec: dict,
) -> None:
    for name, task in spec["root"]["dag"]["tasks"].items():
        given = task["inputs"]["parameters"]["run_id"]["runtimeValue"]["constant"]
        assert given == ("" if name == "preprocess" else "{{$.pipeline_job_uuid}}")


def test_preprocess_learns_its_run_from_its_pod_so_that_another_run_finds_it_in_the_cache(
    spec: dict, kubernetes: dict
) -> None:
    (variable,) = kubernetes["exec-preprocess"]["fieldPathAsEnv"]
    assert variable == {"name": doorway.RUN_ID, "fieldPath": "metadata.labels['pipeline/runid']"}
    parameters = spec["root"]["dag"]["tasks"]["preprocess"]["inputs"]["parameters"]
    assert "pipeline_job_uuid" not in str(parameters)


def test_the_gate_and_deploy_are_never_cached_have_no_retries_of_their_own_and_come_to_an_end(
    spec: dict, kubernetes: dict
) -> None:
    tasks = spec["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    retried = {name: task["retryPolicy"] for name, task in tasks.items() if "retryPolicy" in task}
    ended = {name for name in STEPS if "activeDeadlineSeconds" in kubernetes[f"exec-{name}"]}
    assert set(STEPS) - cached == set(STEPS) - retried.keys() == ended == {"gate", "deploy"}
    for policy in retried.values():
        assert 1 <= policy["maxRetryCount"] <= 2
        assert policy["backoffDuration"] == "30s"


def test_preprocess_is_kept_from_the_cache_on_request_and_nothing_else_changes(
    tmp_path: Path, spec: dict
) -> None:
    path = tmp_path / "pipeline.yaml"
    assert command.main(["compile", "--no-cache", "--output", str(path)]) == 0
    anew = parse(path.read_text())[0]
    task = anew["root"]["dag"]["tasks"]["preprocess"]
    assert not task["cachingOptions"].get("enableCache")
    task["cachingOptions"] = {"enableCache": True}
    assert anew == spec


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


def test_every_task_gets_credentials_only_by_secret_and_settings_by_config_map(
    kubernetes: dict, compiled: str
) -> None:
    assert kubernetes.keys() == {f"exec-{step}" for step in STEPS}
    for executor in kubernetes.values():
        (secret,) = executor["secretAsEnv"]
        assert secret["secretName"] == SECRET
        assert not secret.get("optional")
        assert {pair["envVar"] for pair in secret["keyToEnv"]} == set(SECRET_KEYS)
        (settings,) = executor["configMapAsEnv"]
        assert settings["configMapName"] == SETTINGS
        assert {pair["envVar"] for pair in settings["keyToEnv"]} == set(SETTINGS_KEYS)
    for word in ("pip install", "accesskey", "password", "token", "amazonaws"):
        assert word not in compiled.lower()


def test_every_task_runs_hardened_from_images_that_are_there(kubernetes: dict) -> None:
    for executor in kubernetes.values():
        assert executor["imagePullPolicy"] == "IfNotPresent"
        assert executor["securityContext"] == {"runAsNonRoot": True}
        assert executor["emptyDirMounts"] == [{"volumeName": "scratch", "mountPath": "/tmp"}]


def test_the_whole_pipeline_fits_a_small_node(spec: dict) -> None:
    for executor in spec["deploymentSpec"]["executors"].values():
        resources = executor["container"]["resources"]
        assert int(resources["resourceCpuRequest"].removesuffix("m")) <= 250
        assert re.fullmatch(r"\d+Mi|1Gi", resources["resourceMemoryRequest"])


def test_every_step_has_limits_so_that_it_does_not_take_the_whole_node(spec: dict) -> None:
    """Train's processors are the job's, which has no limit of them in its template either."""
    found = {
        step: spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]["resources"]
        for step in STEPS
    }
    limits = {
        step: (each.get("resourceCpuLimit"), each["resourceMemoryLimit"])
        for step, each in found.items()
    }
    assert limits == {
        "preprocess": ("4", "8Gi"),
        "train": (None, "8Gi"),
        "evaluate": ("4", "16Gi"),
        "gate": ("1", "1Gi"),
        "export": ("2", "16Gi"),
        "deploy": ("1", "4Gi"),
    }


def test_what_training_asks_for_reaches_the_pods_of_its_job(spec: dict) -> None:
    passed = spec["components"]["comp-train"]["taskConfigPassthroughs"]
    applied = {each["field"]: each.get("applyToTask", False) for each in passed}
    assert applied.pop("ENV"), "the step needs the object store's credentials as well"
    assert applied.keys() >= {"RESOURCES", "KUBERNETES_TOLERATIONS", "KUBERNETES_NODE_SELECTOR"}
    assert not any(applied.values())
    others = [spec["components"][f"comp-{step}"] for step in STEPS if step != "train"]
    assert not [each for each in others if "taskConfigPassthroughs" in each]


def strings(document: object) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield from (key, *strings(value))
    elif isinstance(document, list):
        for value in document:
            yield from strings(value)
    elif isinstance(document, str):
        yield document


def test_no_placeholder_stands_inside_a_string_and_no_path_is_this_machines(compiled: str) -> None:
    for text in strings(list(yaml.safe_load_all(compiled))):
        assert "{{" not in text or re.fullmatch(r"\{\{\$(\.\w+)?\}\}", text), text
        assert str(COMPILED.parents[1]) not in text
        assert not re.search(r"/(home|root|work|Users|usr)/", text), text


def images_of(spec: dict) -> dict[str, str]:
    """Step -> its image, and step/variable -> an image that its environment names."""
    found = {}
    for name, executor in spec["deploymentSpec"]["executors"].items():
        step, container = name.removeprefix("exec-"), executor["container"]
        found[step] = container["image"]
        found |= {f"{step}/{each['name']}": each["value"] for each in container.get("env", [])}
    return found


def test_every_step_has_its_image_and_names_those_of_what_it_starts(spec: dict) -> None:
    assert images_of(spec) == {
        "preprocess": images.ref("preprocess"),
        "preprocess/PLSC_WORKER_IMAGE": images.ref("preprocess"),
        "train": images.ref("train-launch"),
        "train/PLSC_WORKER_IMAGE": images.ref("train"),
        "evaluate": images.ref("evaluate"),
        "evaluate/PLSC_WORKER_IMAGE": images.ref("evaluate"),
        "export": images.ref("export"),
        "gate": images.ref("deploy"),
        "deploy": images.ref("deploy"),
        "deploy/PLSC_TRITON_IMAGE": images.ref("triton"),
    }


def test_a_registry_and_a_tag_go_on_all_images(spec: dict) -> None:
    there = parse(compile_pipeline(["glyphs"], registry="here.test:5000/team/", tag="7"))[0]
    for name, image in images_of(spec).items():
        expected = f"here.test:5000/team/{image.removesuffix(images.VERSION)}7"
        assert images_of(there)[name] == expected


def test_an_image_that_is_not_built_is_refused() -> None:
    with pytest.raises(ValueError, match="'gate' is no image"):
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
