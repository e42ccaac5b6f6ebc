"""Precision against recall, and AP by face height."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featherpress.records.evaluation import DetectorEvaluation
from featherpress.reports.figures.style import COLUMN, INK, LEGEND, OTHERS, ROLES, canvas, role_keys, row_bars, tidy
from featherpress.reports.formats import fraction, integer
from featherpress.reports.metrics import mean_score, scores

Numbers = Sequence[float] | NDArray[Any]
Line = tuple[Numbers, Numbers]


def precision_recall(curves: Mapping[str, Sequence[Line]], scores: Mapping[str, float | None], *, iou: float) -> Figure:
    """Draw precision against recall, a line a role or a set of faces: the mean over seeds in bold, each seed thin.

    `scores` are the APs in the legend.

    Shapes: a curve is recall (k,), rising, and precision (k,).
    """
    figure = canvas(COLUMN, 2.7)
    axes = figure.add_subplot()
    for (name, seeds), other in zip(curves.items(), cycle(OTHERS), strict=False):
        stroke = ROLES.get(name, other)
        recall = np.asarray(seeds[0][0])
        precision = np.asarray([seeds[0][1], *(np.interp(recall, *line) for line in seeds[1:])])
        mean = precision.mean(axis=0)
        # Past the last recall reached there is no precision to draw; the fall to 0 is.
        reached = np.concatenate([[True], mean[:-1] > 0])
        if len(seeds) > 1:
            axes.plot(recall[reached], precision.T[reached], color=stroke.color, linewidth=0.5, alpha=0.5)
        axes.plot(
            recall[reached],
            mean[reached],
            color=stroke.color,
            linestyle=stroke.dashes,
            linewidth=1.6,
            label=f"{name}: AP {fraction(scores.get(name))}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    tidy(axes, x=f"recall at IoU {iou:g}", y="precision")
    axes.legend(loc="lower left", handlelength=2.6, **LEGEND)
    return figure


def ap_by_height(evaluations: Mapping[str, Sequence[DetectorEvaluation]]) -> Figure:
    """Draw AP over all faces and by face height: a bar the mean over seeds, a dot each seed."""
    first = next(iter(evaluations.values()))[0]
    names: list[tuple[str | None, str]] = [(None, f"all heights\n{integer(first.data.faces)} faces")]
    names += [(bucket.name, f"{bucket.name} px\n{integer(bucket.faces)} faces") for bucket in first.by_height]
    figure = canvas(COLUMN, 0.65 + len(names) * (0.13 + 0.12 * len(evaluations)))
    axes = figure.add_subplot()
    groups = {role: [scores(seeds, name) for name, _ in names] for role, seeds in evaluations.items()}
    bars = {role: [_bar(values) for values in found] for role, found in groups.items()}
    row_bars(axes, [text for _, text in names], bars)
    thick = 0.8 / len(groups)
    for place, found in enumerate(groups.values()):
        for row, values in enumerate(found):
            if len(values) > 1:
                y = row - 0.4 + thick * (place + 0.5)
                axes.plot(values, [y] * len(values), "o", ms=2, color="white", mec=INK, mew=0.5)
    axes.axhline(0.5, color="#BBBBBB", linewidth=0.6)
    axes.set_xlim(0, min(1.18, axes.get_xlim()[1] * 1.16))
    axes.set_xticks([tick for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0) if tick <= axes.get_xlim()[1]])
    tidy(axes, x=f"AP at IoU {first.protocol.iou:g}", y="face height", grid="x")
    if len(evaluations) > 1:
        role_keys(figure, {role: role for role in evaluations}, columns=len(evaluations))
    return figure


def _bar(values: Sequence[float]) -> tuple[float, str]:
    """Return no bar, and a dash, where there is no AP."""
    mean = mean_score(values)
    # The text stands clear of the dots of seeds that lie beyond the mean.
    return mean or 0.0, f"{'   ' if len(values) > 1 else ''}{fraction(mean)}"
