"""One look for every figure: sizes, colours that colour-blind readers can tell apart, and saving.

Source: Okabe and Ito 2008, Color Universal Design, for the colours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Patch

from featherpress.escaping import written_out
from featherpress.files import naming
from featherpress.reports.formats import MINUS

COLUMN, PAGE = 3.5, 7.0  # inches: one column of a paper, and both
DPI = 200
TEXT, SMALL = 7.5, 6.5  # points
INK, MUTED = "#222222", "#777777"
GAIN, LOSS = "#009E73", "#D55E00"
LEGEND: dict[str, Any] = {"fontsize": SMALL, "frameon": False, "labelcolor": INK}


Dashes: TypeAlias = Literal["-", "--", ":", "-."]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """How one role is drawn everywhere: colour for most readers, dashes and markers for all."""

    color: str
    dashes: Dashes
    marker: str


ROLES: Mapping[str, Stroke] = {
    "teacher": Stroke(color="#56606B", dashes=":", marker="s"),
    "control": Stroke(color="#E69F00", dashes="--", marker="^"),
    "student": Stroke(color="#0072B2", dashes="-", marker="o"),
    "model": Stroke(color="#0072B2", dashes="-", marker="o"),
    "first": Stroke(color="#56606B", dashes=":", marker="s"),
    "second": Stroke(color="#0072B2", dashes="-", marker="o"),
}
# For what is no role's: five colours and four dashes, so that twenty differ.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_DASHES: tuple[Dashes, ...] = ("-", "--", "-.", ":")
OTHERS = tuple(Stroke(color=_COLORS[n % 5], dashes=_DASHES[n % 4], marker="o^sD"[n % 4]) for n in range(20))


def stroke_of(role: str, place: int) -> Stroke:
    """Return how a role is drawn; an evaluation by its own name as its place among them has it."""
    return ROLES.get(role, OTHERS[place % len(OTHERS)])


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
    if grid == "x":  # rows of bars
        axes.tick_params(axis="y", length=0)


class Bar(NamedTuple):
    """A bar, its text, and how far what else is drawn in its row reaches."""

    length: float
    text: str
    reach: float = 0.0


def row_bars(axes: Axes, groups: Sequence[str], sides: Mapping[str, Sequence[Bar | None]]) -> None:
    """Draw groups of horizontal bars, one a role in each, with its text beyond all in its row; None leaves a gap.

    Shapes: every role has as many bars as there are groups.
    """
    thick = 0.8 / len(sides)
    for place, (role, bars) in enumerate(sides.items()):
        rows = [(i - 0.4 + thick * (place + 0.5), bar) for i, bar in enumerate(bars) if bar is not None]
        lengths = [bar.length for _, bar in rows]
        axes.barh([y for y, _ in rows], lengths, height=thick * 0.92, color=stroke_of(role, place).color)
        for y, bar in rows:
            write_beside(axes, bar.text, max(bar.length, bar.reach), y)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.45, -0.55)


def write_beside(axes: Axes, text: str, x: float, y: float, *, weight: Literal["normal", "bold"] = "normal") -> None:
    """Write a number just right of a point, on white: no line of the grid goes through it."""
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
    axes.annotate(
        text,
        (x, y),
        (2.5, 0),
        textcoords="offset points",
        va="center_baseline",
        fontsize=SMALL,
        color=INK,
        fontweight=weight,
        bbox=ground,
    )


def legible(text: str) -> str:
    r"""Return text in which letters that the figures' font has not, as emoji, are written out, as \U0001f525."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(each if ord(each) in known or each == "\n" else written_out(each) for each in text)


def fitted(name: str, most: int = 52) -> str:
    """Return a name of so many letters at most, the middle of a longer one left out: a column is wide enough for it."""
    name = legible(name)
    return name if len(name) <= most else f"{name[: most // 2]}\N{HORIZONTAL ELLIPSIS}{name[1 - most // 2 :]}"


PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "K"))


def short(value: float, *, signed: bool = False) -> str:
    """Return a count with three digits at most, as figures have it: 0, 996, 213K, 1.2M, and with its sign +4.22K."""
    rounded = float(f"{value:.3g}")
    size, prefix = next(((size, prefix) for size, prefix in PREFIXES if abs(rounded) >= size), (1.0, ""))
    return f"{rounded / size:{'+' if signed else ''}.3g}{prefix}".replace("-", MINUS)


def role_keys(figure: Figure, labels: Mapping[str, str], *, columns: int = 1) -> None:
    """Set a key above the panels: a patch of each role's colour with its text."""
    handles = [
        Patch(color=stroke_of(role, place).color, label=text) for place, (role, text) in enumerate(labels.items())
    ]
    spacing = {"handlelength": 1.2, "handleheight": 0.8, "borderaxespad": 0.1, "columnspacing": 1.2}
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, **LEGEND | spacing)


def save(figure: Figure, file: Path) -> None:
    """Write a figure at exactly its size as png, pdf or svg, as the suffix says; the same one gives the same bytes."""
    kind = file.suffix.removeprefix(".")
    metadata: dict[str, dict[str, str | None]] = {
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "svg": {"Date": None, "Creator": None},
    }
    with naming(file), rc_context({"svg.hashsalt": "featherpress", "pdf.fonttype": 42}):
        # Not by `savefig`, which draws twice; level 6 takes thrice as long on photographs for 5% less.
        if kind == "png":
            canvas: Any = FigureCanvasAgg(figure)
            canvas.print_png(file, metadata={"Software": None}, pil_kwargs={"compress_level": 4})
        else:
            figure.savefig(file, format=kind, dpi=DPI, metadata=metadata[kind])
