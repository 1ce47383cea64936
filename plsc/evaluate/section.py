"""One benchmark, measured and drawn."""

import numpy as np
import numpy.typing as npt

from plsc.artifacts.report import BenchmarkResult, TarAtFar
from plsc.conf.schema import EvaluateConfig
from plsc.evaluate import curve, plots
from plsc.evaluate.page import Section
from plsc.evaluate.pairs import hardest
from plsc.verification import Benchmark, Measurement, measure, pixel_embeddings

__all__ = ["make_section"]

_HARDEST_PAIRS = 6


def make_section(
    benchmark: Benchmark,
    embeddings: npt.NDArray[np.float32],
    config: EvaluateConfig,
    *,
    image_size: int,
) -> Section:
    """Return the benchmark's result with its plots and hardest pairs.

    Args:
        benchmark: What was embedded.
        embeddings: Of its images, [2n, D], of length 1.
        config: Folds and FAR targets.
        image_size: Height and width in pixels at which the model reads them.
    """
    model = measure(
        embeddings, benchmark.is_same, folds=config.folds, far_targets=config.far_targets
    )
    raw = pixel_embeddings(benchmark.images, image_size=image_size, name=benchmark.name)
    pixels = measure(raw, benchmark.is_same, folds=config.folds, far_targets=config.far_targets)
    result = _result(benchmark, model, pixels)
    least, most = hardest(
        benchmark.images,
        model.similarities,
        benchmark.is_same,
        threshold=model.threshold,
        count=_HARDEST_PAIRS,
    )
    return Section(
        result=result,
        num_same=int(np.sum(benchmark.is_same)),
        num_different=int(np.sum(~benchmark.is_same)),
        roc=plots.roc((model.fpr, model.tpr), (pixels.fpr, pixels.tpr), result.tar_at_far),
        histogram=plots.histogram(model.similarities, benchmark.is_same, model.threshold),
        least_alike=least,
        most_alike=most,
    )


def _result(benchmark: Benchmark, model: Measurement, pixels: Measurement) -> BenchmarkResult:
    return BenchmarkResult(
        name=benchmark.name,
        num_pairs=benchmark.num_pairs,
        accuracy=model.accuracy,
        accuracy_std=model.accuracy_std,
        threshold=model.threshold,
        tar_at_far=[TarAtFar(far_target=far, tar=tar) for far, tar in model.tar_at_far.items()],
        roc=curve.thin(model.fpr, model.tpr, model.thresholds),
        pixel_baseline_accuracy=pixels.accuracy,
    )
