"""What each budget costs in accuracy: a sweep's table, its figure, and what it shows."""

import shlex
from functools import partial

from featherpress.records.comparison import Arm
from featherpress.records.sweep import UNITS, Sweep, SweepPoint
from featherpress.reports.blocks import Block, Code, Heading, Paragraph, Remark, Table
from featherpress.reports.figures.curve import draw_curve
from featherpress.reports.figures.style import PAGE
from featherpress.reports.formats import DASH, change, fraction, integer, interval, percent, spread
from featherpress.reports.metrics import title as metric_title
from featherpress.reports.metrics import with_unit
from featherpress.reports.sections.context import RunContext

MADE_BY = {
    "fit": "the settings that use its budget best, by `featherpress fit`",
    "prune": "what `featherpress prune` leaves of the same network within its budget",
}


def swept(context: RunContext, *, title: bool = False) -> list[Block]:
    """Write up every sweep: a row a budget, the curve, and what it shows."""
    blocks: list[Block] = []
    for sweep in context.sources.sweeps:
        text = f"What each budget costs: `{sweep.model}`"
        blocks.append(Heading(text=text, level=1 if title and not blocks else 2))
        blocks += _written(context, sweep)
    return blocks


def reproduction(context: RunContext) -> list[Block]:
    """Give the commands that go on from here."""
    lines = []
    for sweep in context.sources.sweeps:
        folder = str(sweep.file.parent)
        lines += [shlex.join(["featherpress", "report", f"{folder}/{point.folder}"]) for point in sweep.points]
        lines.append(shlex.join(["featherpress", "gate", folder, "--margin", "0.01"]))
    text = (
        "Each budget is a run of its own, with a report of its own; the gate says from where on the loss is too much."
    )
    return [Heading(text="Go on", level=2), Paragraph(text=text), Code(text="\n".join(lines), language="sh")]


def _written(context: RunContext, sweep: Sweep) -> list[Block]:
    if not sweep.points or sweep.metric is None:
        return [Remark(text="No budget is done yet: go on with `featherpress sweep --resume`.", kind="warning")]
    record, metric = str(sweep.file), with_unit(sweep.metric)
    seeds = f"{len(sweep.seeds)} {'seed' if len(sweep.seeds) == 1 else 'seeds'}"
    controlled = any(point.control for point in sweep.points)
    text = (
        f"A student for each budget: {MADE_BY[sweep.made_by]}, all distilled alike by the recipe `{sweep.recipe}`, "
        f"{seeds} each{', with a control that has no teacher' if controlled else ''}."
    )
    blocks: list[Block] = [Paragraph(text=f"{_shown(sweep)} {text}"), _table(sweep, record)]
    caption = f"{metric_title(sweep.metric)} against {UNITS[sweep.quantity]}; bars: {_level(sweep)} intervals."
    if sweep.target:
        caption += f" Dotted: what the budget `{sweep.target.budget}` allows."
    blocks.append(
        context.figure(
            f"curve-{len(context.figures)}",
            partial(draw_curve, sweep),
            alt=f"{metric} against {UNITS[sweep.quantity]}",
            caption=caption,
            records=[record],
            width=PAGE,
        )
    )
    return [*blocks, *_remarks(sweep)]


def _shown(sweep: Sweep) -> str:
    """Say in a sentence how the smallest and the largest student stand to the teacher."""
    assert sweep.metric is not None
    assert sweep.teacher is not None
    unit = UNITS[sweep.quantity]
    said = []
    for point in (sweep.points[-1], *sweep.points[:-1][:1]):
        found = point.beside_teacher
        limits, cost = interval(found.low, found.high), integer(point.cost(sweep.quantity))
        said.append(f"{change(found.mean)} ({limits}) with {cost} {unit}")
    teacher = f"the teacher, `{sweep.teacher.model}`, with {integer(sweep.teacher.cost(sweep.quantity))} {unit}"
    return f"**{metric_title(sweep.metric)} less that of {teacher}: {', '.join(said)}.**"


def _table(sweep: Sweep, record: str) -> Table:
    assert sweep.metric is not None
    assert sweep.teacher is not None
    metric = with_unit(sweep.metric)
    header = [f"budget ({UNITS[sweep.quantity]})", "student", "parameters", "MACs"]
    header += [f"control's {metric}", f"student's {metric}", "its interval", "less the teacher's", "its interval"]
    header += ["gain from the teacher"]
    teacher = ["teacher", f"`{sweep.teacher.model}`", integer(sweep.teacher.params), integer(sweep.teacher.macs)]
    teacher += [DASH, fraction(sweep.teacher.score), DASH, DASH, DASH, DASH]
    return Table(
        name="sweep",
        title=f"A student a budget; intervals are of {_level(sweep)}",
        header=header,
        rows=[*(_row(point) for point in sweep.points), teacher],
        align="rlrrrrrrrl",
        records=[record],
        pinned="last",
    )


def _row(point: SweepPoint) -> list[str]:
    made = ", ".join(f"{key} {value}" for key, value in point.settings.items()) or "pruned"
    row = [integer(point.budget), made, integer(point.params), integer(point.macs)]
    row += [_arm(point.control), _arm(point.student), interval(point.score.low, point.score.high, fraction)]
    row += [change(point.beside_teacher.mean), interval(point.beside_teacher.low, point.beside_teacher.high)]
    return [*row, f"{change(point.gain.mean)}, {point.verdict}" if point.gain else DASH]


def _arm(arm: Arm | None) -> str:
    return spread(arm.mean, arm.std) if arm else DASH


def _level(sweep: Sweep) -> str:
    return percent(sweep.points[0].score.confidence)


def _remarks(sweep: Sweep) -> list[Block]:
    found: list[Block] = []
    if "seeds" not in sweep.points[0].score.covers:
        text = "The intervals cover the choice of images, not how much another seed would change."
        found.append(Remark(text=text, kind="warning"))
    if sweep.left:
        left = ", ".join(map(integer, sweep.left))
        found.append(Remark(text=f"Not done yet: {left}. `featherpress sweep --resume` goes on.", kind="warning"))
    return found
