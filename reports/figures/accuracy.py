"""Precision against recall, scores by class or by face height, and what was taken for what."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featherpress.records.evaluation import AP, DetectorEvaluation, Metric
from featherpress.reports.figures.style import (
    COLUMN,
    INK,
    LEGEND,
    OTHERS,
    PAGE,
    ROLES,
    SMALL,
    Bar,
    canvas,
    fitted,
    legible,
    role_keys,
    row_bars,
    tidy,
)
from featherpress.reports.formats import fraction, integer
from featherpress.reports.metrics import mean_score, scores

Numbers = Sequence[float] | NDArray[Any]
Line = tuple[Numbers, Numbers]
# Classes of a confusion matrix that fit into one column, and the letters of a class that stand beside it.
IN_COLUMN, LETTERS = 7, 18
# Letters of all names of a key that fit into one line of it.
IN_LINE = 36


def precision_recall(
    curves: Mapping[str, Sequence[Line]],
    scores: Mapping[str, float | None],
    *,
    metric: Metric = AP,
    iou: float | None = None,
) -> Figure:
    """Draw precision against recall, a line a role or a set of examples: the mean over seeds in bold, each seed thin.

    `scores` in the legend are by `metric`; `iou` is from where on a box counts as found, where boxes are matched.

    Shapes: a curve is recall (k,), rising, and precision (k,).
    """
    figure = canvas(COLUMN, 2.55 + 0.14 * len(curves))
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
            label=f"{fitted(name, 40)}: {metric.name} {fraction(scores.get(name))}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    tidy(axes, x="recall" if iou is None else f"recall at IoU {iou:g}", y="precision")
    figure.legend(loc="outside upper left", handlelength=2.6, **LEGEND)  # above: curves may go anywhere
    return figure


def ap_by_height(evaluations: Mapping[str, Sequence[DetectorEvaluation]]) -> Figure:
    """Draw AP over all faces and by face height: a bar the mean over seeds, a dot each seed."""
    first = next(iter(evaluations.values()))[0]
    groups: dict[str | None, str] = {None: f"all heights\n{integer(first.data.faces)} faces"}
    groups |= {bucket.name: f"{bucket.name} px\n{integer(bucket.faces)} faces" for bucket in first.by_height}
    found = {role: [scores(seeds, name) for name in groups] for role, seeds in evaluations.items()}
    return scores_by_group([*groups.values()], found, x=f"AP at IoU {first.protocol.iou:g}", y="face height")


def scores_by_group(
    groups: Sequence[str], scores: Mapping[str, Sequence[Sequence[float]]], *, x: str, y: str
) -> Figure:
    """Draw horizontal bars, the first group apart from the others: a bar the mean over seeds, a dot each seed.

    Shapes: every role has scores of as many groups as there are, each of any number of seeds.
    """
    keys = {role: fitted(role) for role in scores}
    columns = len(keys) if len("".join(keys.values())) <= IN_LINE else 1
    below = 0.13 * (len(keys) - 1) if columns == 1 else 0.0
    figure = canvas(COLUMN, 0.65 + below + len(groups) * (0.13 + 0.12 * len(scores)))
    axes = figure.add_subplot()
    row_bars(axes, groups, {role: [_bar(values) for values in found] for role, found in scores.items()})
    thick = 0.8 / len(scores)
    for place, found in enumerate(scores.values()):
        for row, values in enumerate(found):
            if len(values) > 1:
                at = row - 0.4 + thick * (place + 0.5)
                axes.plot(values, [at] * len(values), "o", ms=2, color="white", mec=INK, mew=0.5)
    axes.axhline(0.5, color="#BBBBBB", linewidth=0.6)
    low, high = axes.get_xlim()
    highest = max((value for found in scores.values() for values in found for value in values), default=0)
    if low >= 0 and highest <= 1:
        axes.set_xlim(0, min(1.18, high * 1.16))
        axes.set_xticks([tick for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0) if tick <= axes.get_xlim()[1]])
    else:
        axes.margins(x=0.16)
    tidy(axes, x=x, y=y, grid="x")
    if len(scores) > 1:
        role_keys(figure, keys, columns=columns)
    return figure


def confusion_matrix(classes: Sequence[str], counts: Numbers) -> Figure:
    """Draw what was taken for what, in % of the examples of each true class.

    Shapes: counts (C, C), a row a true class, a column what it was taken for.
    """
    table = np.asarray(counts, dtype=np.float64)
    whole = table.sum(axis=1, keepdims=True)
    share = np.divide(100 * table, whole, out=np.zeros_like(table), where=whole > 0)
    width = COLUMN if len(classes) <= IN_COLUMN else PAGE
    figure = canvas(width, 0.75 * width)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for row, column in zip(*np.nonzero(table), strict=True):
        value = share[row, column]
        text = "<1" if value < 0.5 else f"{value:.0f}"
        color = "white" if value > 55 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=SMALL, color=color)
    names = map(legible, classes)
    short = [name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}" for name in names]
    places = range(len(classes))
    axes.set_xticks(places, short, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, [f"{name} ({integer(int(n))})" for name, n in zip(short, whole[:, 0], strict=True)])
    tidy(axes, x="taken for", y="true class (examples)")
    axes.tick_params(length=0)
    return figure


def _bar(values: Sequence[float]) -> Bar:
    """Return no bar, and a dash, where there is no score."""
    mean = mean_score(values)
    return Bar(mean or 0.0, fraction(mean), reach=max(values, default=0.0))
