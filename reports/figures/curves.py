"""Precision over recall of one model: a curve for each set of faces to be found."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featherpress.reports.figures.style import COLUMN, INK, TEXT, canvas, tidy
from featherpress.reports.formats import fraction

_STROKES = (("#0072B2", "-"), ("#E69F00", "--"), ("#009E73", ":"))


def precision_recall_curves(
    curves: Mapping[str, tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]],
    scores: Mapping[str, float | None],
) -> Figure:
    """Draw precision over recall up to the last recall that was reached, with the AP of each curve in the legend.

    Shapes: a curve is recall (k,), rising, and precision (k,).
    """
    figure = canvas(COLUMN, 3.0)
    axes = figure.add_subplot()
    for (name, (recall, precision)), (color, dashes) in zip(curves.items(), _STROKES, strict=False):
        x, y = np.asarray(recall), np.asarray(precision)
        reached = y > 0
        label = f"{name}: AP {fraction(scores.get(name))}"
        axes.plot(x[reached], y[reached], color=color, linestyle=dashes, linewidth=1.6, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    tidy(axes, x="recall", y="precision")
    axes.legend(fontsize=TEXT, frameon=False, loc="lower left", labelcolor=INK, handlelength=2.6)
    return figure
