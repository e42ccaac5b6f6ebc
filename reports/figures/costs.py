"""Where the parameters are, and where they went."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featherpress.records.audit import Audit, Component
from featherpress.reports.figures.style import (
    COLUMN,
    GAIN,
    LOSS,
    MUTED,
    ROLES,
    Bar,
    canvas,
    fitted,
    role_keys,
    row_bars,
    short,
    tidy,
    write_beside,
)
from featherpress.reports.formats import label


def pair_components(first: Audit, second: Audit) -> dict[str, tuple[Component, Component]]:
    """Match the components of two audits by name, the first's order before the second's; one that is not costs 0."""
    here, there = ({row.name: row for row in audit.components} for audit in (first, second))
    absent = Component(name="", params=0, macs=0)
    return {name: (here.get(name, absent), there.get(name, absent)) for name in {**here, **there}}


def costs_by_component(audits: Sequence[tuple[str, Audit]]) -> Figure:
    """Draw horizontal bars of the parameters of every component, and below them of its MACs, with rounded numbers.

    `audits` holds (role, audit), one or two of them.
    """
    names = list(dict.fromkeys(c.name for _, audit in audits for c in audit.components))
    rows = len(names) * (0.12 + 0.11 * len(audits))
    figure = canvas(COLUMN, 0.9 + 0.13 * len(audits) + 2 * rows)
    for axes, title, quantity in zip(figure.subplots(2, 1), ("Parameters", "MACs"), ("params", "macs"), strict=True):
        counts = {role: {c.name: getattr(c, quantity) for c in audit.components} for role, audit in audits}
        bars = {
            role: [Bar(found[name], short(found[name])) if name in found else None for name in names]
            for role, found in counts.items()
        }
        row_bars(axes, [_broken(label(name)) for name in names], bars)
        axes.margins(x=0.18)  # room for the number beyond the longest bar
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
        tidy(axes, title=title, grid="x")
    # Of "first", "second" and "model" the name alone says more.
    named = {role: f"{role} " if role in {"teacher", "student"} else "" for role, _ in audits}
    role_keys(figure, {role: f"{named[role]}{fitted(audit.model)}" for role, audit in audits})
    return figure


def waterfall(first: tuple[str, Audit], second: tuple[str, Audit]) -> Figure:
    """Draw the way from one model's total down to the other's, a row a component that changed.

    Each is (role, audit).
    """
    (_, before), (_, after) = first, second
    pairs = pair_components(before, after).items()
    steps = {name: b.params - a.params for name, (a, b) in pairs if b.params != a.params}
    figure = canvas(COLUMN, 0.75 + 0.21 * (len(steps) + 2))
    axes = figure.add_subplot()
    last = len(steps) + 1
    for y, (role, audit) in ((0, first), (last, second)):
        axes.barh(y, audit.total.params, height=0.66, color=ROLES[role].color)
        write_beside(axes, short(audit.total.params), audit.total.params, y, weight="bold")
    level = before.total.params
    for y, change in enumerate(steps.values(), start=1):
        start, level = level, level + change
        _step(axes, y, start, level)
        write_beside(axes, short(change, signed=True), max(start, level), y)
    axes.plot([level, level], [last - 0.67, last - 0.33], color=MUTED, linewidth=0.6)
    assert level == after.total.params
    ends = [before.model, *map(label, steps), after.model]
    axes.set_yticks(range(last + 1), [_broken(name) for name in ends])
    axes.set_ylim(last + 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.margins(x=0.2)
    tidy(axes, x="parameters", grid="x")
    return figure


def _broken(name: str) -> str:
    """Return a model's name without the package it comes from, a long one in two lines: the bars keep their room."""
    short = fitted(name.rpartition(":")[2], most=36)
    cuts = [place for place in range(1, len(short)) if short[place - 1] in "_.- "]
    if len(short) <= 18 or not cuts:
        return short
    cut = min(cuts, key=lambda place: max(place, len(short) - place))
    return f"{short[:cut]}\n{short[cut:]}"


def _step(axes: Axes, y: int, before: int, after: int) -> None:
    """Draw one step and the line that leads to it: down plain, up hatched."""
    color = LOSS if after > before else GAIN
    left, width = min(before, after), abs(after - before)
    axes.plot([before, before], [y - 0.67, y - 0.33], color=MUTED, linewidth=0.6)
    hatch = "////" if after > before else None
    axes.barh(y, width, left=left, height=0.66, color=color, hatch=hatch, edgecolor="white", linewidth=0)
    # The outline keeps a step in sight that is thinner than a pixel.
    axes.barh(y, width, left=left, height=0.66, fill=False, edgecolor=color, linewidth=0.8)
