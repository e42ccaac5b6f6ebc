"""What models score against what they cost."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featherpress.reports.figures.style import COLUMN, LEGEND, canvas, fitted, short, tidy

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#56606B")
MARKERS = ("o", "^", "s", "D", "v")  # as many as share no divisor with the colours: 35 models differ


def score_against_cost(
    costs: Mapping[str, float], scores: Mapping[str, Sequence[float]], *, cost: str, metric: str
) -> Figure:
    """Draw a point for every model of which the cost is known: the mean over seeds, its standard deviation as a bar.

    `costs` and `scores` are by model, these one a seed; a model looks alike whatever the cost.
    """
    figure = canvas(COLUMN, 2.2 + 0.14 * len(costs))
    axes = figure.add_subplot()
    for (name, values), color, marker in zip(scores.items(), cycle(COLORS), cycle(MARKERS)):
        if name in costs and values:
            error = np.std(values, ddof=1) if len(values) > 1 else None
            look: dict[str, Any] = {"color": color, "ms": 4.5, "elinewidth": 0.8, "capsize": 2}
            axes.errorbar(costs[name], float(np.mean(values)), yerr=error, fmt=marker, label=fitted(name), **look)
    axes.set_xlim(0, 1.08 * max(costs.values(), default=1))
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    tidy(axes, x=cost, y=metric, grid="y")
    figure.legend(loc="outside upper left", **LEGEND)
    return figure
