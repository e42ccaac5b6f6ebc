"""What each budget costs in accuracy: students and their controls over cost, beside the teacher."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from featherpress.records.comparison import Difference
from featherpress.records.sweep import UNITS, Sweep
from featherpress.reports.figures.style import INK, LEGEND, MUTED, PAGE, ROLES, SMALL, canvas, fitted, short, tidy
from featherpress.reports.metrics import with_unit

# A teacher that costs as many times the smallest student is drawn on a logarithmic axis.
FAR = 8


def draw_curve(sweep: Sweep) -> Figure:
    """Draw the score of each budget's student with its interval, its control's, the teacher's, and the budget's target.

    Errors: AssertionError for a sweep of which nothing is done.
    """
    assert sweep.metric is not None
    figure = canvas(PAGE, 2.9)
    axes = figure.add_subplot()
    costs = [point.cost(sweep.quantity) for point in sweep.points]
    controls = [(cost, p.control_score) for cost, p in zip(costs, sweep.points, strict=True) if p.control_score]
    _line(axes, "control", controls)
    _line(axes, "student", [(cost, point.score) for cost, point in zip(costs, sweep.points, strict=True)])
    far = _teacher(axes, sweep, costs)
    if sweep.target is not None:
        axes.axvline(
            sweep.target.amount,
            color=MUTED,
            linestyle=":",
            linewidth=1.0,
            label=f"budget {fitted(sweep.target.budget)}",
        )
    if far:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(costs))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    tidy(axes, x=UNITS[sweep.quantity], y=with_unit(sweep.metric), grid="y")
    figure.legend(loc="outside upper left", ncols=4, **LEGEND)
    return figure


def _line(axes: Axes, role: str, found: list[tuple[int, Difference]]) -> None:
    """Draw one arm: its means, and their intervals as bars."""
    if not found:
        return
    stroke, means = ROLES[role], [score.mean for _, score in found]
    below = [score.mean - score.low for _, score in found]
    above = [score.high - score.mean for _, score in found]
    look: dict[str, Any] = {
        "color": stroke.color,
        "linestyle": stroke.dashes,
        "marker": stroke.marker,
        "ms": 4,
        "linewidth": 1.2,
    }
    look |= {"elinewidth": 0.8, "capsize": 2.5, "alpha": 1.0 if role == "student" else 0.75}
    # A percentile interval may leave its mean out by a hair.
    bars = [[max(value, 0.0) for value in side] for side in (below, above)]
    axes.errorbar([cost for cost, _ in found], means, yerr=bars, label=role, **look)


def _teacher(axes: Axes, sweep: Sweep, costs: list[int]) -> bool:
    """Draw the teacher's score as a line, and the teacher where its cost is known; return whether that is far away."""
    teacher = sweep.teacher
    if teacher is None or teacher.score is None:
        return False
    stroke, cost = ROLES["teacher"], teacher.cost(sweep.quantity)
    axes.axhline(teacher.score, color=stroke.color, linestyle="--", linewidth=0.9, label="teacher")
    if cost:
        axes.plot([cost], [teacher.score], marker=stroke.marker, color=stroke.color, ms=5)
        below: dict[str, Any] = {
            "xytext": (0, -9),
            "textcoords": "offset points",
            "ha": "right",
            "fontsize": SMALL,
            "color": INK,
        }
        axes.annotate(short(cost), (cost, teacher.score), **below)
    return cost is not None and cost > FAR * min(costs)
