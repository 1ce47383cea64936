"""The report's plots, as SVG that goes into an HTML page and takes its colors from there.

matplotlib writes fixed colors; each stand-in below becomes a CSS variable, so one picture serves
light and dark.
"""

import io
import re
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plsc.artifacts.report import TarAtFar

__all__ = ["histogram", "roc"]

_Floats = npt.NDArray[np.floating]

_INK, _FAINT, _SAME, _DIFFERENT = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {_INK: "--ink", _FAINT: "--faint", _SAME: "--same", _DIFFERENT: "--different"}

_STYLE = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
    "svg.hashsalt": "plsc",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": 10,
    "xtick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.color": _FAINT,
    "ytick.labelcolor": _INK,
    "grid.color": _FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
_SIZE_INCHES = (4.8, 3.2)


def roc(
    model: tuple[_Floats, _Floats], pixels: tuple[_Floats, _Floats], marks: Sequence[TarAtFar]
) -> str:
    """Return the curves of model and pixel baseline over a logarithmic false accept rate.

    Args:
        model: FAR and TAR, each [points], rising.
        pixels: The same of the baseline.
        marks: Operating points to mark on the model's curve.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(_SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        floor = _smallest_positive(model[0], pixels[0])
        for (far, tar), color, label in ((model, _SAME, "model"), (pixels, _FAINT, "raw pixels")):
            first = max(int(np.searchsorted(far, floor)) - 1, 0)  # best TAR before the axis begins
            shown_far = np.maximum(far[first:], floor)
            axes.step(shown_far, tar[first:], where="post", color=color, lw=1.8, label=label)
        shown = [mark for mark in marks if mark.far_target >= floor]
        axes.plot(
            [m.far_target for m in shown],
            [m.tar for m in shown],
            "o",
            color=_SAME,
            ms=5,
            clip_on=False,
        )
        axes.set(
            xscale="log",
            xlim=(floor, 1),
            ylim=(0, 1.02),
            xlabel="False accept rate",
            ylabel="True accept rate",
        )
        axes.grid(visible=True)
        _legend(axes)
        return _svg(figure, "ROC curve over a logarithmic false accept rate")


def histogram(similarities: _Floats, is_same: npt.NDArray[np.bool_], threshold: float) -> str:
    """Return how the similarities of same and different pairs spread around the threshold.

    Args:
        similarities: Cosine similarity of each pair, [n].
        is_same: Whether the pair is of one class, [n].
        threshold: Similarity from which a pair counts as the same.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(_SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        bins = np.linspace(min(float(similarities.min()), threshold, 0.0), 1.0, 61).tolist()
        for chosen, color, label in (
            (is_same, _SAME, "same class"),
            (~is_same, _DIFFERENT, "different"),
        ):
            axes.hist(
                similarities[chosen],
                bins,
                histtype="stepfilled",
                alpha=0.45,
                color=color,
                label=label,
            )
        axes.axvline(threshold, color=_INK, lw=1.2, ls=(0, (4, 3)))
        axes.annotate(
            f"{threshold:.2f}",
            (threshold, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -3),
            textcoords="offset points",
            va="top",
        )
        axes.set(xlabel="Cosine similarity", ylabel="Pairs", xlim=(bins[0], 1))
        _legend(axes)
        return _svg(figure, "Histogram of similarities of same and different pairs")


def _smallest_positive(*rates: _Floats) -> float:
    """Return the smallest rate that these pairs can show, where a logarithmic axis begins."""
    positive = np.concatenate(rates)
    return float(np.min(positive[positive > 0], initial=0.1))


def _legend(axes: Axes) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        handlelength=1.2,
        borderaxespad=0.1,
        borderpad=0.2,
    )


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = re.sub(
        r'\s(xmlns|xmlns:\w+)="[^"]*"', "", buffer.getvalue()
    )  # HTML knows these; nothing names a host
    svg = svg[svg.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return svg
