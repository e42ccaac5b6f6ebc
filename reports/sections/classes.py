"""What the models score class by class, what they take for what, and pictures of what they answer."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from featherpress.records.evaluation import TaskEvaluation
from featherpress.reports.blocks import Block, Paragraph, Remark, Table
from featherpress.reports.figures.accuracy import confusion_matrix, precision_recall, scores_by_group
from featherpress.reports.figures.pictures import draw_pictures, page_width, rows_shown
from featherpress.reports.figures.style import PAGE
from featherpress.reports.formats import DASH, change, integer
from featherpress.reports.metrics import mean_score, score, scores, title, with_unit
from featherpress.reports.runs import EVALUATION, PICTURES, several
from featherpress.reports.sections.context import RunContext

DRAWN = 20
"""Classes that a figure holds; of more, tables say the most."""
LISTED = 40
PAIRS = 15

Found = Mapping[str, Sequence[TaskEvaluation]]


def by_class(context: RunContext) -> list[Block]:
    """Give the score of every class by role, how student and control differ, and what was taken for what."""
    found = {role: seeds for role, seeds in context.run.of_tasks.items() if seeds[0].by_class}
    if not found:
        return []
    metric = context.run.metric
    parts: list[Block] = [context.heading(f"{title(metric)} by class"), *_class_table(context, found)]
    names = [each.name for each in next(iter(found.values()))[0].by_class]
    if len(names) <= DRAWN:
        groups = [None, *names]
        bars = {role: [scores(seeds, name) for name in groups] for role, seeds in found.items()}
        caption = f"{title(metric)} of all and of every class. No bar has an interval: one of few examples rests on "
        caption += "little." + (" Bars: mean over seeds; dots: each seed." if several(found.values()) else "")
        labels = ["all classes", *map(_shorten, names)]
        draw = partial(scores_by_group, labels, bars, x=with_unit(metric), y="class")
        records = context.files(found, EVALUATION)
        parts.append(
            context.figure("score_by_class", draw, alt="Bars of the score by class", caption=caption, records=records)
        )
    return parts + _confusions(context, found) + _curves(context)


def pictures(context: RunContext) -> list[Block]:
    """Show the pictures that the task saved, model beside model."""
    saved = context.run.pictures
    if saved is None or not saved.images:
        return []
    shown, held = len(rows_shown(saved)), len(saved.images)
    caption = (f"All {held}" if shown == held else f"The first {shown} of {held}") + " images that the run saved."
    caption = " ".join(filter(None, (saved.caption, caption)))
    if several(context.run.of_tasks.values()):
        caption += " The models are those of the first seed."
    draw = partial(draw_pictures, saved)
    alt = "Images side by side with what each model answered"
    figure = context.figure("pictures", draw, alt=alt, caption=caption, records=[PICTURES], width=page_width(saved))
    return [context.heading("Pictures"), figure]


def _shorten(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}\N{HORIZONTAL ELLIPSIS}"


def _code(name: str) -> str:
    """Return a class's name so that nothing in it counts as a mark."""
    return f"`{name.replace('`', '')}`"


def _class_table(context: RunContext, found: Found) -> list[Block]:
    first = next(iter(found.values()))[0]
    metric, paired = context.run.metric, {"control", "student"} <= set(found)
    listed = [*first.by_class]
    notes = []
    if len(listed) > LISTED:
        role, seeds = [*found.items()][-1]
        listed = sorted(listed, key=lambda each: mean_score(scores(seeds, each.name)) or 0)[:LISTED]
        notes.append(f"The {LISTED} of {integer(len(first.by_class))} classes with the lowest score of the {role}.")
    if any([each.name for each in e.by_class] != [c.name for c in first.by_class] for s in found.values() for e in s):
        notes.append("Not all models were scored on the same classes: a dash is a class that one of them lacks.")
    rows = []
    for each in listed:
        values = {role: scores(seeds, each.name) for role, seeds in found.items()}
        rows.append([_code(each.name), integer(each.examples), *map(score, values.values())])
        if paired:
            rows[-1].append(_gap(mean_score(values["control"]), mean_score(values["student"])))
    header = ["class", "examples", *found, *(["student less control"] if paired else [])]
    table = Table(
        name="classes",
        title=f"{title(metric)}{f' ({metric.unit})' if metric.unit else ''} by class",
        header=header,
        rows=rows,
        align="l" + "r" * (len(header) - 1),
        records=context.files(found, EVALUATION),
    )
    if not context.run.same_data:
        notes.append(f"The examples are those of {next(iter(found))}.")
    if paired:
        notes.append("Differences by class have no interval: a verdict is on all classes together.")
    if several(found.values()):
        notes.append("Mean \N{PLUS-MINUS SIGN} standard deviation over seeds.")
    return [table, *([Paragraph(text=" ".join(notes))] if notes else [])]


def _gap(before: float | None, after: float | None) -> str:
    return DASH if before is None or after is None else change(after - before)


def _confusions(context: RunContext, found: Found) -> list[Block]:
    """Show what the last role took for what, all seeds together: as a figure, or its most frequent confusions."""
    confused = {role: seeds for role, seeds in found.items() if any(each.confusion for each in seeds)}
    if not confused:
        return []
    role, seeds = [*confused.items()][-1]
    names = [each.name for each in seeds[0].by_class]
    counts = np.sum([np.asarray(each.confusion) for each in seeds if each.confusion], axis=0)
    records = context.files([role], EVALUATION)
    if len(names) > DRAWN:
        return [_pairs_table(role, names, counts, records)]
    caption = f"What the {role} took each true class for, in % of the class's examples"
    caption += ", all seeds together." if len(seeds) > 1 else "."
    draw = partial(confusion_matrix, names, counts)
    width = PAGE if len(names) > 7 else 3.5
    alt = "True classes against what they were taken for"
    return [context.figure("confusion", draw, alt=alt, caption=caption, records=records, width=width)]


def _pairs_table(role: str, names: Sequence[str], counts: NDArray[np.int64], records: Sequence[str]) -> Block:
    off = counts.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    places = [divmod(int(place), len(names)) for place in order if off.flat[place]]
    if not places:
        return Remark(text=f"The {role} took no class for another.")
    rows = [
        [
            _code(names[true]),
            _code(names[taken]),
            integer(int(off[true, taken])),
            f"{100 * off[true, taken] / counts[true].sum():.1f} %",
        ]
        for true, taken in places
    ]
    header = ["true class", "taken for", "examples", "of the true class"]
    title = f"What the {role} confuses most, of {integer(len(names))} classes"
    return Table(name="confusions", title=title, header=header, rows=rows, align="llrr", records=records)


def _curves(context: RunContext) -> list[Block]:
    """Draw precision against recall of all roles that have it."""
    found = context.run.of_tasks
    lines = {
        role: [(each.curve.recall, each.curve.precision) for each in seeds if each.curve and each.curve.recall]
        for role, seeds in found.items()
    }
    drawn = {role: each for role, each in lines.items() if each}
    if not drawn:
        return []
    means = {role: mean_score(scores(found[role])) for role in drawn}
    draw = partial(precision_recall, drawn, means, metric=context.run.metric)
    caption = "Precision against recall." + (
        " Bold: mean over seeds; thin: each seed." if several(drawn.values()) else ""
    )
    records = context.files(drawn, EVALUATION)
    return [context.figure("precision_recall", draw, alt="Precision against recall", caption=caption, records=records)]
