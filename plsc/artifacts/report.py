"""Report: how well a model verifies, between evaluate and the gate; and what the gate said to it.

The report's page (``verification_report.html``, for people) lies beside its index and is named in
it; what a machine reads on is in the index itself, a thinned ROC curve of each benchmark included.
"""

from plsc.artifacts.index import Artifact, Count, Payload, Value

__all__ = ["BenchmarkResult", "GateReport", "Report", "RocPoint", "TarAtFar", "Verdict"]


class TarAtFar(Value):
    """One operating point."""

    far_target: float
    """False accept rate asked for, 0..1."""
    tar: float
    """True accept rate there, 0..1."""


class RocPoint(Value):
    """One point of the receiver operating characteristic."""

    threshold: float
    """Cosine similarity from which a pair counts as the same class, -1..1."""
    far: float
    """False accept rate there, 0..1."""
    tar: float
    """True accept rate there, 0..1."""


class BenchmarkResult(Value):
    """One benchmark, measured by the 10-fold protocol."""

    name: str
    num_pairs: Count
    accuracy: float
    """Mean over the folds, 0..1."""
    accuracy_std: float
    """Population standard deviation over the folds."""
    threshold: float
    """Mean of the folds' thresholds, as a cosine similarity: the same class when above."""
    tar_at_far: list[TarAtFar]
    roc: list[RocPoint]
    """At most 200 points in the order of rising FAR, from (0, .) to (1, 1)."""
    pixel_baseline_accuracy: float
    """The same protocol on the correlation of raw pixels: what a model must beat."""


class Report(Artifact):
    """Index of a verification."""

    step: Count
    """Steps after which the verified checkpoint was written."""
    images_per_s: float
    """Images decoded and embedded per second."""
    benchmarks: list[BenchmarkResult]
    page: Payload
    """The report as one self-contained HTML file."""


class Verdict(Value):
    """What the gate says to one benchmark."""

    benchmark: str
    accuracy: float | None
    """Measured accuracy, 0..1; None when the report does not hold the benchmark."""
    threshold: float | None
    """Smallest accuracy that passes; None when the benchmark is measured but not judged."""
    passed: bool


class GateReport(Artifact):
    """Index of a gate that was passed; a gate that was not leaves none."""

    verdicts: list[Verdict]
