"""A small checkpoint and small benchmarks, real ones, for the stages behind training."""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from plsc import doorway
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.index import Payload
from plsc.conf import compose
from plsc.conf.schema import PipelineConfig
from plsc.models import build
from plsc.verification import Benchmark, write_benchmark

BENCHMARKS = ("glyph_cross", "glyph_slant", "glyph_rough")


def tiny(folder: Path, *overrides: str) -> PipelineConfig:
    """Return the tiny experiment with everything below ``folder``."""
    places = (f"store_uri={folder}/store", f"data_uri={folder}/data", "run_id=test-run")
    return compose("tiny", *places, *overrides)


def settled_backbone(config: PipelineConfig) -> torch.nn.Module:
    """Return a backbone whose batch norms have seen data: its embeddings are of common size."""
    torch.manual_seed(config.seed)
    backbone = build(config.model, config.image_size)
    with torch.no_grad():
        for _ in range(20):
            backbone(torch.rand(16, 3, config.image_size, config.image_size) * 2 - 1)
    return backbone.eval()


def write_checkpoint(config: PipelineConfig) -> Checkpoint:
    """Write a checkpoint, as training would, where this run's later stages look for it."""
    backbone = settled_backbone(config)
    path = Path(config.store_uri) / "backbone.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}, path)
    content = path.read_bytes()
    checkpoint = Checkpoint(
        provenance=doorway.Stopwatch().provenance(config),
        step=24,
        epoch=1,
        samples_seen=1536,
        num_classes=40,
        embedding_size=config.model.embedding_size,
        ranks=2,
        dataset_uri=f"{config.store_uri}/runs/test-run/preprocess/index.json",
        backbone=Payload(
            uri=str(path), size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
        ),
        head=[],
        figures={"loss": 2.5, "accuracy_glyph_cross": 0.75},
    )
    checkpoint.write(config.evaluate.checkpoint_uri)
    return checkpoint


def write_benchmarks(config: PipelineConfig, *, num_pairs: int = 40) -> None:
    """Write every benchmark of ``config``: noisy patterns, every second pair the same."""
    for seed, name in enumerate(config.evaluate.benchmarks):
        write_benchmark(config.data_uri, patterns(name, config.image_size, num_pairs, seed))


def patterns(name: str, image_size: int, num_pairs: int, seed: int) -> Benchmark:
    """Return a benchmark whose classes are coarse patterns, each image one of them under noise."""
    generator = np.random.default_rng(seed)
    is_same = np.arange(num_pairs) % 2 == 0
    images = []
    for same in is_same:
        first = generator.integers(0, 256, (4, 4, 3))
        second = first if same else generator.integers(0, 256, (4, 4, 3))
        images += [jpeg(_noisy(pattern, image_size, generator)) for pattern in (first, second)]
    return Benchmark(name, images, is_same)


def _noisy(pattern: np.ndarray, image_size: int, generator: np.random.Generator) -> np.ndarray:
    large = np.kron(pattern, np.ones((image_size // 4, image_size // 4, 1)))
    return np.clip(large + generator.normal(0, 40, large.shape), 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    """Return pixels, uint8 [height, width, 3], as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
