"""What was pruned: from the original to the student, unit by unit, and what is locked and why."""

from collections.abc import Sequence
from functools import partial

from featherpress.records.audit import Audit
from featherpress.records.pruning import PrunedUnit, Pruning
from featherpress.reports.blocks import Block, Paragraph, Table
from featherpress.reports.figures.costs import waterfall
from featherpress.reports.formats import DASH, integer, less, relative_change, scientific
from featherpress.reports.runs import BUDGET, PRUNING
from featherpress.reports.sections.context import RunContext

MOST, NAMED = 40, 3


def pruned(context: RunContext) -> list[Block]:
    """Show what the student was cut out of, and what could not be cut; nothing where it was not pruned."""
    budget, record = context.run.budget, context.run.pruning
    original = budget.original if budget else None
    if original is None and record is None:
        return []
    parts: list[Block] = [context.heading("What was pruned")]
    if record is not None:
        parts.append(Paragraph(text=f"{_asked(record)} {_proof(record)}"))
    if original is not None and budget is not None:
        teacher = budget.teacher
        if teacher is not None and (teacher.model, teacher.settings) == (original.model, original.settings):
            parts.append(Paragraph(text="The teacher is the original: the way from one to the other is drawn below."))
        else:
            parts.append(_waterfall(context, original, budget.student))
    if record is not None:
        parts += [_widths(record), *_locked(record)]
    return parts


def _asked(record: Pruning) -> str:
    before, after = record.before, record.after
    limits = ", ".join(
        f"at most {integer(most)} {_named(name)}, of which {integer(record.slack[name])} are left"
        for name, most in record.limits.items()
    )
    text = (
        f"`{record.model}` was cut from {integer(before.params)} to {integer(after.params)} parameters "
        f"({less(before.params, after.params)}) and from {integer(before.macs)} to {integer(after.macs)} MACs "
        f"({less(before.macs, after.macs)}); asked for: {limits}."
    )
    if record.uniform:
        found = ", ".join(f"{integer(amount)} {_named(name)}" for name, amount in record.uniform.items())
        text += f" The largest uniform width within the limits has {found}."
    return text


def _named(limit: str) -> str:
    """Return a limit's name as a reader has it: `params` alone, or `backbone params` of a component."""
    return " ".join({"params": "parameters", "macs": "MACs"}.get(word, word) for word in limit.split())


def _proof(record: Pruning) -> str:
    return (
        "The pruned model computes what the original does without these channels, to "
        f"{scientific(record.error)} of its signal."
    )


def _waterfall(context: RunContext, original: Audit, student: Audit) -> Block:
    return context.figure(
        "pruned",
        partial(waterfall, ("first", original), ("student", student)),
        alt=f"Steps from the parameters of {original.model} to those of the pruned student",
        caption=f"From the original's {integer(original.total.params)} parameters to the pruned student's "
        f"{integer(student.total.params)}: what each component gave up.",
        records=[BUDGET],
    )


def _widths(record: Pruning) -> Table:
    """List what was cut together, the widest first."""
    free = sorted((unit for unit in record.units if not unit.locked), key=lambda unit: -unit.before * unit.channels)
    shown = free[:MOST]
    title = "Axes that shrink together, and how wide they were and are"
    if len(free) > MOST:
        title += f"; the {MOST} widest of {len(free)}"
    return Table(
        name="widths",
        title=title,
        header=["axis", "and others", "before", "after", "change"],
        rows=[_width(unit) for unit in shown],
        align="lrrrr",
        records=[PRUNING],
    )


def _width(unit: PrunedUnit) -> list[str]:
    before, after = unit.before * unit.channels, unit.after * unit.channels
    name = f"`{unit.axes[0]}`" if unit.axes else DASH
    return [name, integer(len(unit.axes) - 1), integer(before), integer(after), relative_change(before, after)]


def _locked(record: Pruning) -> list[Block]:
    if not record.locked:
        return [Paragraph(text="Nothing is locked.")]
    return [
        Table(
            name="locked",
            title="What could not be cut, and why",
            header=["why", "axes", "which"],
            rows=[[reason, integer(len(units)), _names(units)] for reason, units in record.locked.items()],
            align="lrl",
            records=[PRUNING],
        )
    ]


def _names(units: Sequence[PrunedUnit]) -> str:
    names = [f"`{unit.axes[0]}`" for unit in units if unit.axes]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
