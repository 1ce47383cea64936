"""A ROC curve thinned to what an index and KFP's page can carry."""

import numpy as np
import numpy.typing as npt

from plsc.artifacts.report import RocPoint

__all__ = ["MAX_POINTS", "thin"]

MAX_POINTS = 200
"""KFP keeps a ROC curve in its metadata store, point by point."""

_DECADES = 6.0


def thin(
    far: npt.NDArray[np.floating],
    tar: npt.NDArray[np.floating],
    thresholds: npt.NDArray[np.floating],
    *,
    limit: int = MAX_POINTS,
) -> list[RocPoint]:
    """Return at most ``limit`` points of a curve, its ends included.

    They lie evenly along the curve's length on a linear and on a logarithmic FAR axis together, so
    both read well.

    Args:
        far: False accept rate, [points], rising, 0..1.
        tar: True accept rate, likewise.
        thresholds: Cosine similarity at each point; infinite ones become -1 or 1.
        limit: Largest number of points.
    """
    decades = np.log10(np.clip(far, 10**-_DECADES, 1))
    steps = np.abs(np.diff(far)) + np.abs(np.diff(tar)) + np.abs(np.diff(decades)) / _DECADES
    travelled = np.concatenate([[0.0], np.cumsum(steps)])
    chosen = np.unique(np.searchsorted(travelled, np.linspace(0, travelled[-1], limit)))
    chosen = np.clip(chosen, 0, len(far) - 1)
    chosen[-1] = len(far) - 1
    bounded = np.clip(thresholds, -1, 1)
    return [
        RocPoint(threshold=float(bounded[i]), far=float(far[i]), tar=float(tar[i])) for i in chosen
    ]
