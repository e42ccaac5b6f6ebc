"""Whether distillation helped, with everything the answer rests on."""

import statistics
from collections.abc import Sequence
from functools import partial

from featherpress.records.comparison import Comparison
from featherpress.reports.blocks import Block, Paragraph, Picture, Remark, Table, bold
from featherpress.reports.figures.differences import draw_differences
from featherpress.reports.formats import change, fraction, integer, interval, percent, spread
from featherpress.reports.metrics import title, with_unit
from featherpress.reports.runs import COMPARISON
from featherpress.reports.sections.context import RunContext


def distillation(context: RunContext) -> list[Block]:
    """Say whether distillation helped, with everything the answer rests on."""
    run = context.run
    if not run.distilled:
        return []
    parts: list[Block] = [context.heading("Did distillation help?")]
    if run.comparison is None:
        text = f"`{COMPARISON}` is missing: without a control trained alike, nothing is claimed."
        return [*parts, Remark(text=text)]
    comparison, records = run.comparison, [run.compared_in]
    parts += [_seed_table(comparison, records), Paragraph(text=interval_sentence(comparison))]
    if comparison.others:
        parts += [_others_table(comparison, records), Paragraph(text=_explain(comparison))]
    parts.append(_figure(context, comparison))
    if comparison.knowledge is not None:
        parts.append(Paragraph(text=comparison.knowledge.sentence))
    if comparison.beside_teacher:
        parts.append(Paragraph(text=f"Beside its teacher: {comparison.beside_teacher}"))
    return [*parts, *(Remark(text=text, kind="warning") for text in _warnings(comparison))]


_ARMS = {
    "shuffled": "a teacher whose outputs belong to other {unit}",
    "smoothing": "labels as sure as the teacher",
    "compute": "no teacher and more steps",
    "public": "another backbone to start from",
}


def _explain(comparison: Comparison) -> str:
    """Say how the further arms were judged, and what each has in the teacher's place."""
    arms = [f"`{each.name}` has {_ARMS[each.name]}" for each in comparison.others if each.name in _ARMS]
    said = f" {', '.join(arms)}.".format(unit=comparison.unit) if arms else ""
    return f"Verdicts are against the control, adjusted for the number of rows by Holm.{said}"


def _figure(context: RunContext, comparison: Comparison) -> Picture:
    """Draw what every arm scores above the control."""
    name, level = comparison.scored_by.name, percent(comparison.difference.confidence)
    seeds = "; dots: each seed" if len(comparison.seeds) > 1 else ""
    return context.figure(
        "differences",
        partial(draw_differences, comparison),
        alt="Differences to the control, with intervals",
        caption=f"How far each arm's {name} lies above the control's, its {level} interval{seeds}. More is better.",
        records=[context.run.compared_in],
    )


def _warnings(comparison: Comparison) -> list[str]:
    """Say what the answer does not rest on, and what it should not rest on."""
    found = []
    if "seeds" not in comparison.difference.covers:
        found.append(
            f"The interval covers the choice of {comparison.unit}, not how much another seed would change. "
            "Train three seeds or more before relying on it."
        )
    steps = comparison.steps
    if steps is not None and steps.control != steps.distilled:
        found.append(f"The arms trained for different numbers of steps: {steps.distilled} and {steps.control}.")
    if comparison.leak is not None and comparison.leak.same:
        found.append(f"{comparison.leak.same} validation images were training images too.")
    return found


def _others_table(comparison: Comparison, records: Sequence[str]) -> Table:
    rows = [
        [
            f"`{each.name}`",
            *map(integer, each.steps[:1]),
            spread(each.scores.mean, each.scores.std),
            change(each.difference.mean),
            interval(each.difference.low, each.difference.high),
            each.verdict,
        ]
        for each in comparison.others
    ]
    metric, steps = comparison.scored_by, ["steps"] if all(each.steps for each in comparison.others) else []
    return Table(
        name="others",
        title=f"{title(metric)} of the arms that were trained beside student and control",
        header=["arm", *steps, with_unit(metric), "difference to the control", "interval", "verdict"],
        rows=rows,
        align=f"l{'r' * len(steps)}rrll",
        records=records,
    )


def _seed_table(comparison: Comparison, records: Sequence[str]) -> Table:
    control, distilled, metric = comparison.control, comparison.distilled, comparison.scored_by
    rows = [
        [name, *map(fraction, (*arm.scores, arm.mean, arm.std))]
        for name, arm in (("control", control), ("distilled", distilled))
    ]
    gaps = [after - before for before, after in zip(control.scores, distilled.scores, strict=True)]
    deviation = statistics.stdev(gaps) if len(gaps) > 1 else None
    difference = ["difference", *map(change, (*gaps, distilled.mean - control.mean)), fraction(deviation)]
    return Table(
        name="seeds",
        title=f"{title(metric)} of control and distilled student, seed by seed",
        header=[with_unit(metric), *(f"seed {seed}" for seed in comparison.seeds), "mean", "std over seeds"],
        rows=[*rows, bold(difference)],
        align="l" + "r" * (len(gaps) + 2),
        records=records,
        pinned="last",
    )


def interval_sentence(comparison: Comparison) -> str:
    """Return the interval of the difference and what it allows to say, decided on the exact limits."""
    found, name = comparison.difference, comparison.scored_by.name
    meaning = {
        "better": "lies above 0: the student is **better** with distillation",
        "worse": "lies below 0: the student is **worse** with distillation",
        "not shown": f"holds 0: that distillation changes the {name} is **not shown**",
        "undecided": "decides nothing: there is **no verdict**",
    }[comparison.verdict]
    covered = f"{integer(found.examples)} {comparison.unit}"
    if "seeds" in found.covers:
        covered = f"{integer(found.seeds)} seeds and of {covered}"
    return (
        f"Difference in {with_unit(comparison.scored_by)}, distilled less control: {change(found.mean)}. "
        f"Its {percent(found.confidence)} interval, {interval(found.low, found.high)}, {meaning}. "
        f"It covers the choice of {covered}. Method: {found.method}, {integer(found.resamples)} resamples."
    )
