"""Where the parameters are, and where they went."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featherpress.reports.figures.style import (
    GAIN,
    INK,
    LOSS,
    MUTED,
    PAGE,
    ROLES,
    SMALL,
    TEXT,
    canvas,
    tidy,
)
from featherpress.reports.formats import integer, label, signed_integer
from featherpress.reports.records import Audit

__all__ = ["Pair", "pair_components", "parameters_by_component", "waterfall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One component in both models; 0 where a model does not have it.

    Units: parameters and multiply-accumulates.
    """

    name: str
    params: tuple[int, int]
    macs: tuple[int, int]


def pair_components(teacher: Audit, student: Audit) -> tuple[Pair, ...]:
    """Match the components of two audits by name, in the teacher's order, then what only the student has."""
    first = {c.name: c for c in teacher.components}
    second = {c.name: c for c in student.components}
    pairs = []
    for name in dict.fromkeys([*first, *second]):
        a, b = first.get(name), second.get(name)
        pairs.append(
            Pair(
                name=name,
                params=(a.params if a else 0, b.params if b else 0),
                macs=(a.macs if a else 0, b.macs if b else 0),
            )
        )
    for side, total in enumerate((teacher.total, student.total)):
        assert sum(p.params[side] for p in pairs) == total.params
        assert sum(p.macs[side] for p in pairs) == total.macs
    return tuple(pairs)


def parameters_by_component(audits: Sequence[tuple[str, Audit]]) -> Figure:
    """Draw horizontal bars of the parameters of every component, one bar a model, with exact numbers.

    `audits` holds (role, audit), one or two of them.
    """
    names = list(dict.fromkeys(c.name for _, audit in audits for c in audit.components))
    figure = canvas(PAGE, 0.75 + 0.36 * len(names))
    axes = figure.add_subplot()
    thick = 0.8 / len(audits)
    for place, (role, audit) in enumerate(audits):
        params = {c.name: c.params for c in audit.components}
        rows = [(i - 0.4 + thick * (place + 0.5), params[name]) for i, name in enumerate(names) if name in params]
        axes.barh(
            [y for y, _ in rows],
            [value for _, value in rows],
            height=thick * 0.92,
            color=ROLES[role].color,
            label=f"{role} {audit.model}: {integer(audit.total.params)} in all",
        )
        for y, value in rows:
            axes.annotate(
                integer(value), (value, y), (3, 0), textcoords="offset points", va="center", fontsize=SMALL, color=INK
            )
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.margins(x=0.1)
    tidy(axes, x="parameters", grid="x")
    axes.tick_params(axis="y", length=0, labelsize=TEXT)
    axes.legend(fontsize=TEXT, facecolor="white", edgecolor="none", framealpha=1, loc="lower right", labelcolor=INK)
    return figure


def waterfall(teacher: Audit, student: Audit) -> Figure:
    """Draw the way from the teacher's total down to the student's, a step a component that changed."""
    steps = [p for p in pair_components(teacher, student) if p.params[0] != p.params[1]]
    figure = canvas(PAGE, 2.7)
    axes = figure.add_subplot()
    last = len(steps) + 1
    for x, (role, audit) in ((0, ("teacher", teacher)), (last, ("student", student))):
        axes.bar(x, audit.total.params, width=0.62, color=ROLES[role].color)
        _note(text=integer(audit.total.params), x=x, y=audit.total.params, figure=figure, bold=True)
    level = teacher.total.params
    for x, step in enumerate(steps, start=1):
        before, after = level, level + step.params[1] - step.params[0]
        _step(axes, x, before, after)
        _note(text=signed_integer(after - before), x=x, y=max(before, after), figure=figure, bold=False)
        level = after
    axes.plot([last - 0.69, last - 0.31], [level, level], color=MUTED, linewidth=0.6)
    assert level == student.total.params
    ends = [
        f"teacher\n{teacher.model}",
        *(label(p.name).replace(" ", "\n") for p in steps),
        f"student\n{student.model}",
    ]
    axes.set_xticks(range(last + 1), ends)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.margins(y=0.1)
    tidy(axes, y="parameters", grid="y")
    axes.tick_params(axis="x", length=0)
    return figure


def _step(axes: Axes, x: int, before: int, after: int) -> None:
    """Draw one step and the line that leads to it: down plain, up hatched."""
    color = LOSS if after > before else GAIN
    bottom, height = min(before, after), abs(after - before)
    axes.plot([x - 0.69, x - 0.31], [before, before], color=MUTED, linewidth=0.6)
    hatch = "////" if after > before else None
    axes.bar(x, height, bottom=bottom, width=0.62, color=color, hatch=hatch, edgecolor="white", linewidth=0)
    # The outline keeps a step in sight that is thinner than a pixel.
    axes.bar(x, height, bottom=bottom, width=0.62, fill=False, edgecolor=color, linewidth=0.8)


def _note(*, text: str, x: float, y: float, figure: Figure, bold: bool) -> None:
    figure.axes[0].annotate(
        text,
        (x, y),
        (0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=SMALL,
        color=INK,
        fontweight="bold" if bold else "normal",
    )
