"""What models score against what they cost."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featherpress.reports.figures.style import COLUMN, LEGEND, PAGE, canvas, tidy

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#56606B")
MARKERS = ("o", "^", "s", "D", "v")  # as many as share no divisor with the colours: 35 models differ
KEYS = 3  # models in a line of the key
PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "K"))


def score_against_cost(
    costs: Mapping[str, Mapping[str, float]], scores: Mapping[str, Sequence[float]], *, metric: str
) -> Figure:
    """Draw a panel a cost and a point a model: the mean over seeds, and its standard deviation as a bar.

    `costs` are by name and unit, then by model; `scores` by model, one a seed.
    """
    width = COLUMN if len(costs) == 1 else PAGE
    lines = -(-len(scores) // (KEYS if width == PAGE else 1))
    figure = canvas(width, 2.2 + 0.14 * lines)
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, (title, found) in zip(panels, costs.items(), strict=True):
        for (name, values), color, marker in zip(scores.items(), cycle(COLORS), cycle(MARKERS)):
            if name in found and values:
                error = np.std(values, ddof=1) if len(values) > 1 else None
                mean = float(np.mean(values))
                look = {"color": color, "ms": 4.5, "elinewidth": 0.8, "capsize": 2}
                axes.errorbar(found[name], mean, yerr=error, fmt=marker, label=name, **look)
        axes.set_xlim(0, 1.08 * max(found.values(), default=1))
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        tidy(axes, x=title, y=metric if axes is panels[0] else "", grid="y")
    drawn = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    columns = KEYS if width == PAGE else 1
    figure.legend(drawn.values(), drawn, loc="outside upper left", ncols=columns, **LEGEND)
    return figure


def _short(value: float) -> str:
    return next((f"{value / size:g} {unit}" for size, unit in PREFIXES if value >= size), f"{value:g}")
