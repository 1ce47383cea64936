"""The export stage: checkpoint -> ONNX graph, in parity with the torch model."""

import hashlib
import importlib.metadata
import json
import logging
import tempfile
from pathlib import Path

from plsc import doorway, storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.index import Payload
from plsc.artifacts.onnx_model import OnnxModel
from plsc.conf import to_dict
from plsc.conf.schema import PipelineConfig
from plsc.export import graph, parity
from plsc.models import restore

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(config: PipelineConfig) -> OnnxModel:
    """Export the checkpoint at ``config.export.checkpoint_uri`` and write the graph's index.

    Raises:
        CheckpointError: If the checkpoint was altered or does not fit its model.
        ExportError: If the backbone is no single graph, or the graph computes something else.
        StorageError, BenchmarkError: If something cannot be read or written.
    """
    watch = doorway.Stopwatch()
    checkpoint = Checkpoint.read(config.export.checkpoint_uri)
    backbone = restore(checkpoint)
    image_size = int(checkpoint.provenance.config["image_size"])
    metadata = _metadata(config, checkpoint, image_size)
    content = graph.export(
        backbone, image_size=image_size, opset=config.export.opset, metadata=metadata
    )
    log.info(
        "graph: %.1f MB, opset %d, %.1f s", len(content) / 1e6, config.export.opset, watch.seconds
    )
    uri = storage.join(config.store_uri, "runs", config.run_id, "export", "model.onnx")
    with tempfile.TemporaryDirectory(prefix="plsc-export-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        pixels = parity.images(config, image_size)
        gap = parity.check(backbone, path, pixels, tolerance=config.export.parity_tolerance)
        log.info("parity: differs by at most %.1e from torch on %d images", gap, len(pixels))
        storage.upload(path, uri)
    model = OnnxModel(
        provenance=watch.provenance(config),
        graph=Payload(uri=uri, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()),
        opset=config.export.opset,
        image_size=image_size,
        embedding_size=checkpoint.embedding_size,
        parity_max_abs=gap,
    )
    model.write(doorway.index_uri(config, "export"))
    return model


def _metadata(config: PipelineConfig, checkpoint: Checkpoint, image_size: int) -> dict[str, str]:
    """Return what the graph says about itself, for whoever finds the file alone."""
    canonical = json.dumps(to_dict(config), sort_keys=True).encode()
    return {
        "run_id": config.run_id,
        "experiment": config.name,
        "config_sha256": hashlib.sha256(canonical).hexdigest(),
        "plsc_version": importlib.metadata.version("plsc"),
        "checkpoint_step": str(checkpoint.step),
        "image_size": str(image_size),
        "embedding_size": str(checkpoint.embedding_size),
        "thresholds": json.dumps(dict(config.evaluate.thresholds), sort_keys=True),
        "figures": json.dumps(checkpoint.figures, sort_keys=True),
    }
