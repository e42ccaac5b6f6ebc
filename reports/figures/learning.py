"""How losses and scores went over the training, and how near the student came to its teacher's features."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TypeAlias

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featherpress.records.evaluation import Metric
from featherpress.records.run import Correlation
from featherpress.reports.figures.style import (
    COLUMN,
    INK,
    LEGEND,
    OTHERS,
    ROLES,
    SMALL,
    Stroke,
    canvas,
    role_keys,
    tidy,
)
from featherpress.reports.metrics import series, with_unit

# A line's name, its look, the seeds it is of, and their column.
Line: TypeAlias = tuple[str, Stroke, Sequence[pd.DataFrame], str]


def training_curves(trainings: Mapping[str, Sequence[pd.DataFrame]], *, metric: Metric) -> Figure:
    """Draw task loss and validation score of each role, and below them the terms of distillation where there are any.

    Thin lines are single seeds as logged; bold ones are their mean, losses smoothed over 1/25 of the steps. Where no
    score was measured between epochs, the losses get its room.
    """
    students = trainings.get("student", ())
    terms = distillation_terms(students)
    scored = was_scored(trainings)
    figure = canvas(COLUMN, 3.5 if terms else 1.9)
    grid = figure.add_gridspec(2 if terms else 1, 2)
    loss = figure.add_subplot(grid[0, 0] if scored else grid[0, :])
    lines = [(role, ROLES[role], seeds) for role, seeds in trainings.items()]
    _panel(loss, [(*line, "task") for line in lines], title="Task loss", y="weighted loss")
    if scored:
        score = figure.add_subplot(grid[0, 1])
        titles = {
            "title": f"Validation {metric.name}" if len(metric.name) < 10 else "Validation",
            "x": "epoch",
            "y": with_unit(metric),
        }
        _panel(score, [(*line, "score") for line in lines], **titles)
    if terms:
        drawn = [(name.removeprefix("kd_"), look, students, name) for name, look in zip(terms, cycle(OTHERS))]
        _panel(figure.add_subplot(grid[1, 0]), drawn, title="Distillation terms", y="weighted loss")
        ratio = [("student", ROLES["student"], students, "kd_ratio")]
        _panel(figure.add_subplot(grid[1, 1]), ratio, title="Gradient norms", y="distillation / task")
    return figure


def was_scored(trainings: Mapping[str, Sequence[pd.DataFrame]]) -> bool:
    """Tell whether any training measured a score between epochs."""
    return any(steps["score"].notna().any() for seeds in trainings.values() for steps in seeds)


def distillation_terms(students: Sequence[pd.DataFrame]) -> list[str]:
    """Return the columns of the distillation losses that were ever on, in the order they were logged."""
    logged = dict.fromkeys(str(name) for steps in students for name in steps.columns[steps.sum() != 0])
    return [name for name in logged if name.startswith("kd_") and name != "kd_ratio"]


def _panel(axes: Axes, lines: Iterable[Line], *, title: str, y: str, x: str = "step") -> None:
    """Draw lines over steps, smoothed, or over epochs, from 0 on, with room above several for their key."""
    for line in lines:
        _draw(axes, *line, x=x)
    tidy(axes, title=title, x=x, y=y, grid="y")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    keys = len(axes.get_legend_handles_labels()[1])
    low, high = axes.get_ylim()
    low = low if axes.dataLim.y0 < 0 else 0.0
    axes.set_ylim(low, low + (high - low) * (1.35 if keys > 1 else 1.04))
    if keys > 1:
        close = {"borderaxespad": 0.1, "labelspacing": 0.3, "columnspacing": 0.6, "handletextpad": 0.4}
        axes.legend(loc="upper right", ncols=1 + (keys > 2), handlelength=1.6, **LEGEND | close)


def _draw(axes: Axes, name: str, stroke: Stroke, seeds: Sequence[pd.DataFrame], column: str, *, x: str) -> None:
    """Draw each seed thin and their mean, at the places all of them logged, in bold."""
    lines = [line for line in (series(steps, x, column) for steps in seeds) if len(line)]
    for line in lines:
        axes.plot(line, color=stroke.color, linewidth=0.5, alpha=0.45)
    mean = pd.concat(lines, axis=1, join="inner").mean(axis=1) if lines else pd.Series()
    if mean.empty:
        return
    smoothed = x == "step"
    axes.plot(
        # At the ends fewer values are averaged, so that none is made up.
        mean.rolling(max(1, len(mean) // 25), center=True, min_periods=1).mean() if smoothed else mean,
        color=stroke.color,
        linestyle=stroke.dashes,
        linewidth=1.3,
        marker="" if smoothed else stroke.marker,
        markersize=2.6,
        label=name,
        zorder=3 if stroke.dashes != "-" else 2,  # where two lines are one, both show
    )


def level_correlation(found: Correlation) -> Figure:
    """Draw the CKA with the teacher's features: a group of bars per level, a bar per role."""
    figure = canvas(COLUMN, 2.2)
    axes = figure.add_subplot()
    width = 0.8 / len(found.roles)
    for place, role in enumerate(found.roles):
        for column, level in enumerate(found.levels):
            value = level.cka.get(role)
            if value is not None:
                x = column - 0.4 + width * (place + 0.5)
                axes.bar(x, value, 0.9 * width, color=ROLES[role].color)
                axes.annotate(f"{value:.2f}", (x, value), ha="center", va="bottom", fontsize=SMALL, color=INK)
    axes.set_xticks(range(len(found.levels)), [f"stride {level.stride} px" for level in found.levels])
    axes.set_ylim(0, 1.1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    tidy(axes, y="linear CKA with the teacher", grid="y")
    axes.tick_params(axis="x", length=0)
    role_keys(figure, {role: role for role in found.roles}, columns=2)
    return figure
