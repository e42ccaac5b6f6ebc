"""Accuracy against cost, ours and published: two panels, as the two were not measured alike.

Published detectors are hollow and stand on WIDER FACE; ours are filled and stand on the data of their run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from featherpress.reports.figures.names import Name, place_names
from featherpress.reports.figures.style import COLUMN, INK, ROLES, SMALL, canvas, thousands, tidy
from featherpress.reports.published import Published

# Colours of Okabe and Ito for test scales and machines, with a marker each for grey printers: none that a role has.
KINDS = (("#009E73", "D"), ("#D55E00", "v"), ("#CC79A7", "p"), ("#56B4E9", "<"), ("#222222", "P"), ("#009E73", ">"))
PUBLISHED_AP, OUR_AP = "mean AP of\neasy, medium, hard (%)", "AP, all faces (%)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One of our models: where it stands, how it is drawn, and what it is called.

    Units: `x` parameters or milliseconds, AP from 0 to 1.
    """

    role: str
    name: str
    x: float
    ap: float


def accuracy_against_parameters(published: Sequence[Published], points: Sequence[Point]) -> Figure:
    """Draw published detectors by their parameters, and ours below them on the same scale of parameters."""
    places = {row: float(row.params) for row in published if row.mean is not None}
    figure = canvas(COLUMN, 4.4)
    panels = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    low, high = _limits([*places.values(), *(point.x for point in points)])
    for axes in panels:
        _scale(axes, low, high)
        axes.xaxis.set_major_formatter(lambda value, _: thousands(value))
    tidy(panels[0], title="Published, on WIDER FACE", y=PUBLISHED_AP, grid="y")
    tidy(panels[1], title="Measured here", x="parameters (log scale)", y=OUR_AP, grid="y")
    _draw(panels, places, {row: row.scale or "scale not said" for row in places}, points)
    return figure


def accuracy_against_latency(published: Sequence[Published], points: Sequence[Point]) -> Figure:
    """Draw published detectors by their latency, and ours below them on an axis of their own: machines differ."""
    places = {row: row.latency_ms for row in published if row.latency_ms is not None and row.mean is not None}
    figure = canvas(COLUMN, 4.6)
    panels = figure.subplots(2, 1, height_ratios=(3, 2))
    for axes, values in zip(panels, ([*places.values()], [point.x for point in points]), strict=True):
        _scale(axes, *_limits(values))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    tidy(panels[0], title="Published, each on its own machine", x="latency (ms, log scale)", y=PUBLISHED_AP, grid="y")
    tidy(panels[1], title="Measured here", x="median latency (ms, log scale)", y=OUR_AP, grid="y")
    keys = [
        Line2D([], [], color=ROLES[role].color, marker=ROLES[role].marker, markersize=5, linestyle="", label=role)
        for role in dict.fromkeys(point.role for point in points)
    ]
    _add_key(panels[1], keys, loc="best")
    _draw(panels, places, {row: row.machine for row in places}, points)
    return figure


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return limits around positive values, with room for names on both sides."""
    return min(values) / 1.6, max(values) * 2


def _scale(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    steps = (1, 2, 5) if high / low < 80 else (1, 3)
    ticks = [step * 10.0**power for power in range(-2, 10) for step in steps]
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.xaxis.set_minor_locator(NullLocator())


def _draw(
    panels: Sequence[Axes], places: Mapping[Published, float], kinds: Mapping[Published, str], points: Sequence[Point]
) -> None:
    above, below = panels
    _draw_published(above, places, kinds)
    for point in points:
        stroke = ROLES[point.role]
        below.plot(point.x, 100 * point.ap, marker=stroke.marker, color=stroke.color, markersize=5, linestyle="")
    _leave_room(below, [100 * point.ap for point in points])
    place_names(above, [Name(text=_called(row), x=x, y=row.mean or 0.0) for row, x in places.items()])
    place_names(below, [Name(text=point.name, x=point.x, y=100 * point.ap) for point in points])


def _draw_published(axes: Axes, places: Mapping[Published, float], kinds: Mapping[Published, str]) -> None:
    looks = dict(zip(dict.fromkeys(kinds.values()), KINDS, strict=False))
    for row, x in places.items():
        color, marker = looks[kinds[row]]
        axes.plot(x, row.mean or 0.0, color=color, marker=marker, markersize=4.5, markerfacecolor="white", linestyle="")
    _leave_room(axes, [row.mean or 0.0 for row in places])
    keys = [
        Line2D([], [], color=color, marker=marker, markersize=4.5, markerfacecolor="white", linestyle="", label=name)
        for name, (color, marker) in looks.items()
    ]
    _add_key(axes, keys, loc="lower right")


def _add_key(axes: Axes, keys: Sequence[Line2D], *, loc: Literal["best", "lower right"]) -> None:
    """Say what the points are, in a frame: without one its own would look like measurements."""
    axes.legend(
        handles=keys,
        fontsize=SMALL,
        facecolor="#F4F4F4",
        edgecolor="none",
        framealpha=1,
        fancybox=False,
        labelcolor=INK,
        loc=loc,
        handletextpad=0.2,
    )


def _leave_room(axes: Axes, values: Sequence[float]) -> None:
    room = max(1.0, 0.25 * (max(values) - min(values)))
    axes.set_ylim(min(values) - room, max(values) + room)


def _called(row: Published) -> str:
    return row.name.replace("RetinaFace-MobileNet0.25", "RetinaFace\nMobileNet0.25")
