"""One look for every figure: sizes, colours that colour-blind readers can tell apart, and saving.

Source: Okabe and Ito 2008, Color Universal Design, for the colours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = [
    "COLUMN",
    "DPI",
    "GAIN",
    "INK",
    "LOSS",
    "MUTED",
    "PAGE",
    "ROLES",
    "SMALL",
    "TEXT",
    "Stroke",
    "canvas",
    "save",
    "tidy",
]

COLUMN, PAGE = 3.5, 7.0  # inches: one column of a paper, and both
DPI = 200
TEXT, SMALL = 7.5, 6.5  # points
INK, MUTED = "#222222", "#777777"
GAIN, LOSS = "#009E73", "#D55E00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """How one role is drawn everywhere: colour for most readers, dashes and markers for all."""

    color: str
    dashes: Literal["-", "--", ":", "-."]
    marker: str


ROLES: Mapping[str, Stroke] = {
    "teacher": Stroke(color="#56606B", dashes=":", marker="s"),
    "control": Stroke(color="#E69F00", dashes="--", marker="^"),
    "student": Stroke(color="#0072B2", dashes="-", marker="o"),
    "model": Stroke(color="#0072B2", dashes="-", marker="o"),
}


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure of exactly this size in inches, without touching pyplot's state."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: Literal["x", "y", ""] = "") -> None:
    """Give axes the common look: two spines, small ticks, a title at the left, at most one faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.spines[["left", "bottom"]].set_linewidth(0.6)
    axes.tick_params(labelsize=SMALL, width=0.6, length=2.5, color=MUTED, labelcolor=INK)
    axes.set_title(title, fontsize=TEXT, loc="left", color=INK, fontweight="bold")
    axes.set_xlabel(x, fontsize=TEXT, color=INK)
    axes.set_ylabel(y, fontsize=TEXT, color=INK)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color="#DDDDDD", linewidth=0.5)


def save(figure: Figure, file: Path) -> None:
    """Write a PNG of exactly the figure's size; the same figure gives the same bytes."""
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
