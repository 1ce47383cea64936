"""The deploy stage: ONNX graph in, live endpoint out."""

import logging
import tempfile
from pathlib import Path

from plsc import doorway, storage
from plsc.artifacts.deployment import Deployment
from plsc.artifacts.onnx_model import OnnxModel
from plsc.artifacts.report import Report
from plsc.conf.schema import PipelineConfig
from plsc.deploy import interruption
from plsc.deploy.backend import open_servers
from plsc.deploy.canary import Canary
from plsc.deploy.repository import ModelFolder
from plsc.deploy.rollout import Rollout
from plsc.errors import DeployError

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(config: PipelineConfig) -> Deployment:
    """Serve the graph at ``config.deploy.onnx_uri`` as the next version and write the index.

    Raises:
        DeployError: If the new version is not taken; what served before still serves.
        ArtifactError: If the graph's index, or the report's, is not what it should be.
        StorageError, BenchmarkError: If something cannot be read or written.
        ConfigError, ClusterError: If the Deployment cannot be made.
        SystemExit: On SIGTERM, after what was begun is taken back.
    """
    watch = doorway.Stopwatch()
    settings = config.deploy
    model = OnnxModel.read(settings.onnx_uri)
    threshold = _threshold(config)
    with interruption.heard(), tempfile.TemporaryDirectory(prefix="plsc-deploy-") as folder:
        graph_path = _fetch(model, Path(folder))
        canary = Canary.prepare(config, model, graph_path)
        with open_servers(settings) as servers:
            rollout = Rollout(
                folder=ModelFolder(settings.repository_uri, settings.model_name),
                servers=servers,
                canary=canary,
                model=model,
                graph_path=graph_path,
                parameters=_parameters(model, threshold),
            )
            rollout.rehearse()
            switch = rollout.switch()
            rollout.prune(settings.keep_versions, switch.version)
    log.info("%s, version %d, serves at %s", settings.model_name, switch.version, settings.server)
    deployment = Deployment(
        provenance=watch.provenance(config),
        endpoint=settings.server,
        model=settings.model_name,
        version=switch.version,
        previous_version=switch.previous_version,
        repository_uri=settings.repository_uri,
        graph_sha256=model.graph.sha256,
        threshold=threshold,
        canary_images=len(canary.images),
        canary_max_abs=switch.canary_max_abs,
    )
    deployment.write(doorway.index_uri(config, "deploy"))
    return deployment


def _fetch(model: OnnxModel, folder: Path) -> Path:
    """Return a local copy of the graph, checked.

    Raises:
        DeployError: If it is not the graph that the index names.
    """
    path = folder / "model.onnx"
    storage.download(model.graph.uri, path)
    found = storage.sha256_of_file(path)
    if found != model.graph.sha256:
        raise DeployError(
            f"{model.graph.uri} should have the digest {model.graph.sha256}, has {found}:"
            " it was changed after its export; export it again"
        )
    return path


def _threshold(config: PipelineConfig) -> float | None:
    """Return the mean over the benchmarks of the similarity from which pairs count as one class."""
    if not storage.exists(config.evaluate.report_uri):
        log.warning(
            "no report at %s: clients must bring their own threshold", config.evaluate.report_uri
        )
        return None
    thresholds = [result.threshold for result in Report.read(config.evaluate.report_uri).benchmarks]
    return sum(thresholds) / len(thresholds) if thresholds else None


def _parameters(model: OnnxModel, threshold: float | None) -> dict[str, str]:
    """Return what clients can read about the model."""
    given = {
        "run_id": model.provenance.run_id,
        "experiment": model.provenance.experiment,
        "sha256": model.graph.sha256,
        "image_size": str(model.image_size),
        "embedding_size": str(model.embedding_size),
    }
    return given | ({"threshold": repr(threshold)} if threshold is not None else {})
