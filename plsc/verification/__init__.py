"""The ruler: verification sets, the protocol that measures on them, and the baseline to beat."""

from plsc.verification.baseline import pixel_embeddings
from plsc.verification.benchmark import Benchmark, benchmark_uri, read_benchmark, write_benchmark
from plsc.verification.embed import Embedder, embed
from plsc.verification.protocol import Measurement, measure

__all__ = [
    "Benchmark",
    "Embedder",
    "Measurement",
    "benchmark_uri",
    "embed",
    "measure",
    "pixel_embeddings",
    "read_benchmark",
    "write_benchmark",
]
