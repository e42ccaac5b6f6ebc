"""Precision against recall, and AP by face height."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featherpress.reports.figures.style import COLUMN, INK, PAGE, ROLES, SMALL, TEXT, canvas, tidy
from featherpress.reports.formats import ap, integer
from featherpress.reports.records import Evaluation
from featherpress.reports.scores import mean_score, scores

__all__ = ["ap_by_height", "precision_recall"]


def precision_recall(evaluations: Mapping[str, Sequence[Evaluation]]) -> Figure:
    """Draw precision against recall: the mean over seeds in bold, each seed thin."""
    figure = canvas(COLUMN, 3.0)
    axes = figure.add_subplot()
    for role, seeds in evaluations.items():
        stroke = ROLES[role]
        grid = np.asarray(seeds[0].curve_recall)
        curves = np.stack([np.interp(grid, s.curve_recall, s.curve_precision) for s in seeds])
        mean = curves.mean(axis=0)
        # Past the last recall reached there is no precision to draw; the fall to 0 is.
        reached = np.concatenate([[True], mean[:-1] > 0])
        if len(seeds) > 1:
            axes.plot(grid[reached], curves.T[reached], color=stroke.color, linewidth=0.5, alpha=0.5)
        axes.plot(
            grid[reached],
            mean[reached],
            color=stroke.color,
            linestyle=stroke.dashes,
            linewidth=1.6,
            label=f"{role}: AP {ap(mean_score(scores(seeds)))}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    tidy(axes, x="recall", y="precision")
    axes.legend(fontsize=TEXT, frameon=False, loc="lower left", labelcolor=INK, handlelength=2.6)
    return figure


def ap_by_height(evaluations: Mapping[str, Sequence[Evaluation]]) -> Figure:
    """Draw AP over all faces and by face height: a bar the mean over seeds, a dot each seed."""
    first = next(iter(evaluations.values()))[0]
    figure = canvas(PAGE, 2.6)
    axes = figure.add_subplot()
    thick = min(0.28, 0.84 / len(evaluations))
    for place, (role, seeds) in enumerate(evaluations.items()):
        offset = thick * (place + 0.5 - len(evaluations) / 2)
        groups = [scores(seeds), *(scores(seeds, bucket.name) for bucket in first.buckets)]
        _bars(axes, role=role, offset=offset, thick=thick, groups=groups)
    counts = [("all heights", first.data.faces), *((f"{b.name} px", b.faces) for b in first.buckets)]
    axes.set_xticks(range(len(counts)), [f"{name}\n{integer(faces)} faces" for name, faces in counts])
    axes.axvline(0.5, color="#BBBBBB", linewidth=0.6)
    axes.set_ylim(0, min(1.12, axes.get_ylim()[1] * 1.08))
    tidy(axes, x="face height", y="AP", grid="y")
    axes.tick_params(axis="x", length=0)
    if len(evaluations) > 1:
        figure.legend(fontsize=TEXT, frameon=False, loc="outside upper left", ncols=3, labelcolor=INK)
    return figure


def _bars(axes: Axes, *, role: str, offset: float, thick: float, groups: Sequence[Sequence[float]]) -> None:
    """Draw one role's bars, a group each; no bar, and a dash, where there is no AP."""
    stroke = ROLES[role]
    means = [mean_score(values) for values in groups]
    places = [i + offset for i in range(len(groups))]
    axes.bar(places, [mean or 0.0 for mean in means], width=thick * 0.92, color=stroke.color, label=role)
    for x, values, mean in zip(places, groups, means, strict=True):
        if len(values) > 1:
            axes.plot(
                [x] * len(values), values, "o", markersize=2, color="white", markeredgecolor=INK, markeredgewidth=0.5
            )
        axes.annotate(
            ap(mean),
            (x, max(values, default=0.0)),
            (0, 2.5 if len(values) > 1 else 1.5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=SMALL,
            color=INK,
        )
