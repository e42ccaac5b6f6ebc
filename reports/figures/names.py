"""Names beside points, each where it hides the least."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from featherpress.reports.figures.style import INK, SMALL

# Where a name may stand, best first: how far from its point in widths and heights of its text, then in points.
PLACES = (
    (0.0, -0.5, 5, 0),
    (-1.0, -0.5, -5, 0),
    (-0.5, 0.0, 0, 4.5),
    (-0.5, -1.0, 0, -4.5),
    (0.0, 0.0, 3.5, 2.5),
    (-1.0, 0.0, -3.5, 2.5),
    (0.0, -1.0, 3.5, -2.5),
    (-1.0, -1.0, -3.5, -2.5),
    (-0.8, 0.0, 0, 4.5),
    (-0.2, 0.0, 0, 4.5),
    (-0.8, -1.0, 0, -4.5),
    (-0.2, -1.0, 0, -4.5),
)
# How far a name stays from the points of others, in points: nearer, it could be taken for theirs.
CLEAR = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A text and the point it belongs to, in data coordinates."""

    text: str
    x: float
    y: float


def place_names(axes: Axes, names: Sequence[Name]) -> None:
    """Write each name beside its point, free of points, of other names, of the key and of the edge where that can be.

    The axes' limits must be final. Names take their places by turns; of all turns that begin with another one, that
    counts in which they cover least.
    """
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    unit = figure.dpi / 72
    points = [axes.transData.transform((name.x, name.y)) for name in names]
    room = CLEAR * unit
    marks = [Bbox.from_extents(x - room, y - room, x + room, y + room) for x, y in points]
    legend = axes.get_legend()
    keys = [] if legend is None else [legend.get_window_extent()]
    choices = [_places(name, x, y, unit) for name, (x, y) in zip(names, points, strict=True)]
    numbers = range(len(names))
    turns = [_take_turns([*numbers[first:], *numbers[:first]], choices, marks, keys, axes.bbox) for first in numbers]
    best = min(turns, key=lambda turn: turn[0])[1] if turns else {}
    for number, name in enumerate(names):
        box = best[number]
        middle_x, middle_y = axes.transData.inverted().transform(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2))
        text = axes.text(middle_x, middle_y, name.text, ha="center", va="center", fontsize=SMALL, color=INK)
        text.set_linespacing(1.0)
        text.set_in_layout(False)


def _places(name: Name, x: float, y: float, unit: float) -> list[Bbox]:
    """Return where a name may stand, best first; `unit` is pixels a point."""
    lines = name.text.split("\n")
    # The font's letters are about 0.63 of its size wide.
    wide, high = 0.63 * SMALL * max(map(len, lines)) * unit, 1.15 * SMALL * len(lines) * unit
    return [
        Bbox.from_bounds(x + along * wide + dx * unit, y + up * high + dy * unit, wide, high)
        for along, up, dx, dy in PLACES
    ]


def _take_turns(
    order: Sequence[int], choices: Sequence[Sequence[Bbox]], marks: Sequence[Bbox], keys: Sequence[Bbox], inside: Bbox
) -> tuple[float, dict[int, Bbox]]:
    """Give each name in this order the first place that covers least; return what they cover, and the places."""
    taken: dict[int, Bbox] = {}
    total = 0.0
    for number in order:
        others = [*keys, *taken.values(), *(mark for other, mark in enumerate(marks) if other != number)]
        covered = [_covered(box, others, inside) for box in choices[number]]
        total += min(covered)
        taken[number] = choices[number][covered.index(min(covered))]
    return total, taken


def _covered(box: Bbox, taken: Sequence[Bbox], inside: Bbox) -> float:
    """Return the area of what a box covers, and of what of it lies outside."""
    covered = sum(shared.width * shared.height for other in taken if (shared := Bbox.intersection(box, other)))
    kept = Bbox.intersection(box, inside)
    return covered + box.width * box.height - (kept.width * kept.height if kept else 0)
