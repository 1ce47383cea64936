"""Report: how well a model verifies, between evaluate and the gate."""

from plsc.artifacts.index import Artifact, Value

__all__ = ["BenchmarkResult", "Report", "TarAtFar"]


class TarAtFar(Value):
    """One operating point."""

    far_target: float
    """False accept rate asked for, 0..1."""
    tar: float
    """True accept rate there, 0..1."""


class BenchmarkResult(Value):
    """One benchmark, measured by the 10-fold protocol."""

    name: str
    num_pairs: int
    accuracy: float
    """Mean over the folds, 0..1."""
    accuracy_std: float
    """Population standard deviation over the folds."""
    threshold: float
    """Mean over the folds of the chosen threshold, as a cosine similarity: same class when above."""
    tar_at_far: list[TarAtFar]
    pixel_baseline_accuracy: float
    """The same protocol on the correlation of raw pixels: what a model must beat."""


class Report(Artifact):
    """Index of a verification."""

    step: int
    """Steps after which the verified checkpoint was written."""
    images_per_s: float
    benchmarks: list[BenchmarkResult]
