"""Whether distillation helped, with everything the answer rests on."""

import statistics

from featherpress.records import Comparison
from featherpress.reports.blocks import Block, Paragraph, Remark, Table, bold
from featherpress.reports.formats import change, fraction, integer
from featherpress.reports.metrics import METRICS
from featherpress.reports.sections.context import RunContext

COMPARISON = "eval/comparison.json"


def distillation(context: RunContext) -> list[Block]:
    """Say whether distillation helped, with everything the answer rests on."""
    run = context.run
    if not run.distilled:
        return []
    parts: list[Block] = [context.heading("Did distillation help?")]
    if run.comparison is None:
        text = f"`{COMPARISON}` is missing: without a control trained alike, nothing is claimed."
        return [*parts, Remark(text=text)]
    comparison = run.comparison
    parts += [_seed_table(comparison), Paragraph(text=interval_sentence(comparison))]
    if len(comparison.seeds) == 1:
        parts.append(
            Remark(
                text="One seed only: the interval covers the choice of images, not how much another seed would change. "
                "Train more seeds before relying on it.",
                kind="warning",
            )
        )
    return parts


def _seed_table(comparison: Comparison) -> Table:
    control, distilled, metric = comparison.control, comparison.distilled, METRICS[comparison.metric]
    rows = [
        ["control", *(fraction(value) for value in control.scores), fraction(control.mean), fraction(control.std)],
        [
            "distilled",
            *(fraction(value) for value in distilled.scores),
            fraction(distilled.mean),
            fraction(distilled.std),
        ],
    ]
    gaps = [after - before for before, after in zip(control.scores, distilled.scores, strict=True)]
    deviation = statistics.stdev(gaps) if len(gaps) > 1 else None
    difference = [
        "difference",
        *(change(gap) for gap in gaps),
        change(distilled.mean - control.mean),
        fraction(deviation),
    ]
    return Table(
        name="seeds",
        title=f"{metric.title} of control and distilled student, seed by seed",
        header=[metric.whole, *(f"seed {seed}" for seed in comparison.seeds), "mean", "std over seeds"],
        rows=[*rows, bold(difference)],
        align="l" + "r" * (len(gaps) + 2),
        records=[COMPARISON],
        pinned="last",
    )


def interval_sentence(comparison: Comparison) -> str:
    """Return the interval of the difference and what it allows to say, decided on the exact limits."""
    found, name = comparison.difference, METRICS[comparison.metric].name
    meaning = {
        "better": "lies above 0: the student is **better** with distillation",
        "worse": "lies below 0: the student is **worse** with distillation",
        "not shown": f"holds 0: that distillation changes the {name} is **not shown**",
    }[found.verdict]
    text = (
        f"Difference in {name}, distilled less control: {change(found.mean)}. "
        f"Its {100 * found.confidence:g} % interval, [{change(found.low)}, {change(found.high)}], {meaning}. "
        f"Method: {found.method}, {integer(found.resamples)} resamples."
    )
    if len(comparison.seeds) > 1:
        return f"{text} The interval covers the choice of images; the standard deviation covers the seeds."
    return text
