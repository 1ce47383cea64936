"""What a component hands to its step, and what reaches kfp's outputs."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from kfp.dsl import executor

from components.deploy.component import deploy
from components.evaluate.component import evaluate
from components.evaluate.gate import gate
from components.export.component import export
from components.preprocess.component import preprocess
from components.train.component import train

GIVEN = {"experiment": "tiny", "overrides": "seed=1", "data_uri": "s3://b/d", "run_id": "r1"}


class Step:
    """Stands for a stage's step: keeps what it was given, and fills what it is to fill."""

    def __init__(self, answer: str | None = None) -> None:
        self.answer = answer
        self.positional: tuple[str, ...] = ()
        self.named: dict[str, object] = {}

    def __call__(self, *positional: str, **named: object) -> str | None:
        self.positional, self.named = positional, named
        for name, value in named.items():
            if isinstance(value, dict):
                value["filled_as"] = name
            elif name.endswith("_path") and not Path(str(value)).exists():
                Path(str(value)).write_text(name)
        return self.answer


def execute(component: Callable[..., object], folder: Path, **parameters: str) -> dict[str, dict]:
    """Run a component as kfp does in a pod, on artifacts in ``folder``; return its outputs."""
    spec = component.component_spec

    def artifacts(definitions: dict) -> dict:
        return {
            name: {
                "artifacts": [
                    {
                        "name": name,
                        "type": {"schemaTitle": definition.type.split("@")[0]},
                        "uri": str(folder / name),
                        "metadata": {},
                    }
                ]
            }
            for name, definition in definitions.items()
            if definition.type.startswith("system.")
        }

    inputs, outputs = artifacts(spec.inputs or {}), artifacts(spec.outputs or {})
    for name in inputs:
        (folder / name).write_text("index")
    document = {
        "inputs": {"parameterValues": GIVEN | parameters, "artifacts": inputs},
        "outputs": {"artifacts": outputs, "outputFile": str(folder / "output.json")},
    }
    executor.Executor(document, component).execute()
    return json.loads((folder / "output.json").read_text())


@pytest.mark.parametrize(
    ("component", "module", "parameters", "paths", "metadata"),
    [
        (
            preprocess,
            "plsc.preprocess.step",
            {},
            {"dataset_path": "dataset", "report_path": "data_report"},
            {"metadata": "dataset"},
        ),
        (
            train,
            "plsc.train.step",
            {"resume_run": "r0"},
            {"dataset_path": "dataset", "model_path": "model"},
            {"metadata": "model", "metrics": "metrics", "task": None},
        ),
        (
            evaluate,
            "plsc.evaluate.step",
            {},
            {
                "model_path": "model",
                "results_path": "results",
                "report_path": "verification_report",
            },
            {"metrics": "metrics", "roc": "roc"},
        ),
        (
            gate,
            "plsc.evaluate.gate_step",
            {},
            {"results_path": "results", "gate_report_path": "gate_report"},
            {},
        ),
        (
            export,
            "plsc.export.step",
            {},
            {"model_path": "model", "onnx_path": "onnx"},
            {"metadata": "onnx"},
        ),
        (deploy, "plsc.deploy.step", {}, {"onnx_path": "onnx"}, {"metadata": None}),
    ],
)
def test_a_component_hands_paths_and_metadata_to_its_step(
    component: Callable[..., object],
    module: str,
    parameters: dict[str, str],
    paths: dict[str, str],
    metadata: dict[str, str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = Step("127.0.0.1:8001" if component is deploy else None)
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(run_step=step))
    outputs = execute(component, tmp_path, **parameters)
    assert step.positional == ("tiny", "seed=1", "s3://b/d", "r1")
    assert step.named.keys() == paths.keys() | metadata.keys() | parameters.keys()
    assert {name: step.named[name] for name in parameters} == parameters
    for argument, artifact in paths.items():
        assert step.named[argument] == str(tmp_path / artifact)
    for argument, artifact in metadata.items():
        if artifact is not None:
            (held,) = outputs["artifacts"][artifact]["artifacts"]
            assert held["metadata"] == {"filled_as": argument}
    if component is deploy:
        assert outputs["parameterValues"] == {"Output": "127.0.0.1:8001"}


@pytest.mark.parametrize(
    ("component", "module"),
    [
        (preprocess, "plsc.preprocess.step"),
        (train, "plsc.train.step"),
        (evaluate, "plsc.evaluate.step"),
        (gate, "plsc.evaluate.gate_step"),
        (export, "plsc.export.step"),
        (deploy, "plsc.deploy.step"),
    ],
)
def test_every_step_takes_what_its_component_gives(
    component: Callable[..., object], module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib
    import inspect

    real = inspect.signature(importlib.import_module(module).run_step)
    step = Step("127.0.0.1:8001" if component is deploy else None)
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(run_step=step))
    execute(component, tmp_path, **({"resume_run": ""} if component is train else {}))
    real.bind(*step.positional, **step.named)
