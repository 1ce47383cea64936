"""From the pipeline in Python to ``plsc.yaml``, ready for upload in the KFP UI.

The compiler cannot say that a parameter has few allowed values, though the form shows such a
parameter as a drop-down: ``literals`` are written into its result. The finished file is parsed
again, strictly.
"""

import tempfile
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from components import images
from pipelines.end_to_end import TRITON_IMAGE, WORKER_IMAGE, end_to_end

__all__ = ["COMPILED", "compile_pipeline", "parse"]

COMPILED = Path(__file__).parent / "plsc.yaml"


def compile_pipeline(
    experiments: list[str], *, registry: str = "", tag: str = "", is_cached: bool = True
) -> str:
    """Return the compiled pipeline as YAML.

    Args:
        experiments: The allowed values of the parameter ``experiment``.
        registry: Host and path to put in front of every image; empty: none.
        tag: Tag of every image; empty: the version.
        is_cached: Whether preprocess may take the result of an earlier run from KFP's cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(end_to_end, str(path))
        text = path.read_text()
    header = "".join(line.rstrip() + "\n" for line in text.splitlines() if line.startswith("#"))
    spec, platforms = yaml.safe_load_all(text)
    parameter = spec["root"]["inputDefinitions"]["parameters"]["experiment"]
    parameter["literals"] = experiments
    if not is_cached:
        spec["root"]["dag"]["tasks"]["preprocess"]["cachingOptions"] = {}
    for executor in spec["deploymentSpec"]["executors"].values():
        _place_images(executor["container"], registry=registry, tag=tag)
    compiled = header + yaml.safe_dump_all([spec, platforms])
    parse(compiled)
    return compiled


def _place_images(container: dict[str, Any], *, registry: str, tag: str) -> None:
    """Put ``registry`` and ``tag`` on a step's image, and on those that its environment names."""
    container["image"] = images.placed(container["image"], registry=registry, tag=tag)
    for variable in container.get("env", []):
        if variable["name"] in {WORKER_IMAGE, TRITON_IMAGE}:
            variable["value"] = images.placed(variable["value"], registry=registry, tag=tag)


def parse(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return both documents of a compiled pipeline: its specification, and its Kubernetes settings.

    Raises:
        google.protobuf.json_format.ParseError: If a field is unknown or of the wrong type.
    """
    spec, platforms = yaml.safe_load_all(text)
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    for settings in platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        json_format.ParseDict(settings, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    return spec, platforms
