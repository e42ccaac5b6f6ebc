"""How the losses and the scores went over the training."""

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featherpress.reports.figures.style import COLUMN, INK, OTHERS, ROLES, SMALL, Stroke, canvas, tidy
from featherpress.reports.metrics import AP, FloatArray, Metric, Metrics

# Where the gradient of distillation should stand, as a part of the task's.
HEALTHY = (0.3, 0.5)


def training_curves(trainings: Mapping[str, Sequence[Metrics]], *, metric: Metric = AP) -> Figure:
    """Draw task loss and validation score of each role, and below them the terms of distillation where there are any.

    Thin lines are single seeds as logged; bold ones are their mean, losses smoothed over 1/25 of the steps. Where no
    score was measured between epochs, the losses get its room.
    """
    students = trainings.get("student", ())
    terms = distillation_terms(students)
    scored = any(len(each.series("epoch", "score")[0]) for seeds in trainings.values() for each in seeds)
    figure = canvas(COLUMN, 3.5 if terms else 1.9)
    grid = figure.add_gridspec(2 if terms else 1, 2)
    loss = figure.add_subplot(grid[0, 0] if scored else grid[0, :])
    for role, seeds in trainings.items():
        _draw(loss, seeds, x="step", y="task", stroke=ROLES[role], name=role)
    tidy(loss, title="Task loss", x="step", y="weighted loss", grid="y")
    _finish(loss)
    if scored:
        score = figure.add_subplot(grid[0, 1])
        for role, seeds in trainings.items():
            _draw(score, seeds, x="epoch", y="score", stroke=ROLES[role], name=role, smoothed=False)
        tidy(score, title=f"Validation {metric.name}", x="epoch", y=metric.name, grid="y")
        _finish(score)
    if terms:
        _draw_terms(figure.add_subplot(grid[1, 0]), students, terms)
        _draw_ratio(figure.add_subplot(grid[1, 1]), students)
    return figure


def _finish(axes: Axes, *, room: float = 1.35) -> None:
    """Set the ticks, start at 0, and leave room above several lines for their key."""
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    keys = len(axes.get_legend_handles_labels()[1])
    axes.set_ylim(0, axes.get_ylim()[1] * (room if keys > 1 else 1.04))
    if keys > 1:
        axes.legend(
            fontsize=SMALL,
            frameon=False,
            labelcolor=INK,
            handlelength=1.6,
            borderaxespad=0.1,
            labelspacing=0.3,
            columnspacing=0.6,
            handletextpad=0.4,
            ncols=1 + (keys > 2),
            loc="upper right",
        )


def distillation_terms(students: Sequence[Metrics]) -> list[str]:
    """Return the columns of the distillation losses that were ever on, in the order they were logged."""
    logged = {name: values for metrics in students for name, values in metrics.columns.items() if np.nansum(values)}
    return [name for name in logged if name.startswith("kd_") and name != "kd_ratio"]


def smooth(values: FloatArray, window: int) -> FloatArray:
    """Return the running mean over `window` values, centred; fewer at the ends, so no value is made up.

    Shapes: (n,) -> (n,).
    """
    ones = np.ones(min(window, len(values)))
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def _draw_terms(axes: Axes, students: Sequence[Metrics], terms: Sequence[str]) -> None:
    for name, stroke in zip(terms, cycle(OTHERS), strict=False):
        _draw(axes, students, x="step", y=name, stroke=stroke, name=name.removeprefix("kd_"))
    tidy(axes, title="Distillation terms", x="step", y="weighted loss", grid="y")
    _finish(axes)


def _draw_ratio(axes: Axes, students: Sequence[Metrics]) -> None:
    """Draw how strongly distillation pulls beside the task, and above all lines what the band means."""
    _draw(axes, students, x="step", y="kd_ratio", stroke=ROLES["student"], name="student")
    axes.axhspan(*HEALTHY, color="#000000", alpha=0.07, linewidth=0)
    tidy(axes, title="Gradient norms", x="step", y="distillation / task", grid="y")
    _finish(axes)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.16)
    low, high = HEALTHY
    axes.annotate(
        f"grey: {low:g} to {high:g}, healthy",
        (1, 1),
        (0, -1),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=SMALL,
        color=INK,
    )


def _draw(
    axes: Axes, seeds: Sequence[Metrics], *, x: str, y: str, stroke: Stroke, name: str, smoothed: bool = True
) -> None:
    """Draw each seed thin and their mean, at the places all of them logged, in bold."""
    lines = [line for line in (metrics.series(x, y) for metrics in seeds) if len(line[0])]
    if not lines:
        return
    for places, values in lines:
        axes.plot(places, values, color=stroke.color, linewidth=0.5, alpha=0.45)
    common = reduce(np.intersect1d, [places for places, _ in lines])
    if not len(common):
        return
    mean = np.mean([values[np.searchsorted(places, common)] for places, values in lines], axis=0)
    axes.plot(
        common,
        smooth(mean, max(1, len(mean) // 25)) if smoothed else mean,
        color=stroke.color,
        linestyle=stroke.dashes,
        linewidth=1.3,
        marker="" if smoothed else stroke.marker,
        markersize=2.6,
        label=name,
        zorder=3 if stroke.dashes != "-" else 2,  # where two lines are one, both show
    )
