"""How a report begins: its title, its answer in a few sentences, and several runs or counts in one table."""

from collections.abc import Sequence

from featherpress.records.audit import Audit
from featherpress.records.evaluation import AnyEvaluation, ClassifierEvaluation, DetectorEvaluation, TaskEvaluation
from featherpress.reports.blocks import Block, Heading, Paragraph, Table, origin
from featherpress.reports.formats import DASH, change, integer, interval, less, relative_change, spread
from featherpress.reports.metrics import score, scores, with_unit
from featherpress.reports.metrics import title as metric_title
from featherpress.reports.runs import EVALUATION, Run, target
from featherpress.reports.sections.context import RunContext
from featherpress.reports.sections.costs import counted_in
from featherpress.reports.sources import Sources

COUNTED_ONLY = "Counted, not trained: nothing is said of accuracy."


def title(run: Run) -> str:
    """Return what a run is, in a line."""
    if run.counted_only:
        return f"Counting {' against '.join(f'`{audit.model}`' for _, audit in run.audits)}"
    if run.scored_only:
        names = [f"`{name}`" for name in run.evaluated]
        return f"Evaluations: {', '.join(names)}" if len(names) > 1 else f"Evaluating `{run.student_model}`: {names[0]}"
    if run.in_a_loop:
        return f"Distilling in a loop: `{run.name}`"
    if run.distilled:
        return f"Distilling `{run.teacher_model}` into `{run.student_model}`"
    return f"Training `{run.student_model}`"


def deployed(sources: Sources) -> str:
    """Return the title of a report on benchmarks and exports alone."""
    timed = dict.fromkeys(f"`{timing.model}`" for bench in sources.benches for timing in bench.results)
    written = dict.fromkeys(f"`{export.model}`" for export in sources.exports)
    parts = [f"{word} {', '.join(names)}" for word, names in (("Timing", timed), ("Exporting", written)) if names]
    return "; ".join(parts)


def compared(models: Sequence[str]) -> str:
    """Return the title of a report on numbers measured elsewhere."""
    if len(models) > 2:
        return f"Comparing {len(models)} models"
    return f"{'Comparing' if len(models) > 1 else 'About'} {' with '.join(f'`{model}`' for model in models)}"


def summary(context: RunContext) -> list[Block]:
    """Give the answer first: the verdict as the comparison wrote it, then what the models cost and how they score."""
    run = context.run
    if run.counted_only:
        text = f"**{_costs(run)}** {origin(counted_in(run))}"
        return [Paragraph(text=text), *([] if _scored(context) else [Paragraph(text=COUNTED_ONLY)])]
    if run.scored_only:
        return [Paragraph(text=f"{_scores(run)} {origin(context.files(run.evaluated, EVALUATION))}")]
    records = [
        *counted_in(run),
        *context.files(run.evaluated, EVALUATION),
        *([run.compared_in] if run.comparison else []),
    ]
    texts = (_costs(run), _scores(run), origin(records))
    return [Paragraph(text=f"**{_verdict(run)}**"), Paragraph(text=" ".join(text for text in texts if text))]


def _scored(context: RunContext) -> bool:
    """Return whether the report holds a score of a model that was counted here."""
    sources, counted = context.sources, {target(audit.model) for _, audit in context.run.audits}
    models = {export.model for export in sources.exports if export.scored}
    models |= {each.model for run in sources.runs for found in run.evaluated.values() for each in found}
    return bool(sources.given or counted & models)


def _verdict(run: Run) -> str:
    """Return the run's one sentence."""
    if run.comparison is not None:
        return run.comparison.sentence
    if run.distilled:
        return "No comparison with a control was recorded, so nothing is claimed about distillation."
    return "One model trained without a teacher: there is nothing to compare it with."


def _costs(run: Run) -> str:
    """Return what the model costs beside the other one that was counted; empty where nothing was counted."""
    if not run.audits:
        return ""
    (_, first), (role, last) = run.audits[0], run.audits[-1]
    params, macs = integer(last.total.params), integer(last.total.macs)
    if first is last:
        return f"`{last.model}` has {params} parameters and {macs} MACs."
    name, other = f"`{last.model}`", f"`{first.model}`"
    if role == "student":
        name, other = f"The student {name}", f"its teacher {other}"
    word = "as" if last.total.params == first.total.params else "than"
    return (
        f"{name} has {params} parameters, {_beside(first.total.params, last.total.params)} {word} {other}, "
        f"and {macs} MACs, {_beside(first.total.macs, last.total.macs)}."
    )


def _beside(before: int, after: int) -> str:
    if not before and after:
        return f"{integer(after)} more"
    return "as many" if before == after else less(before, after).replace("less", "fewer")


def _scores(run: Run) -> str:
    """Return how good each role is, and on what; empty where nothing was evaluated."""
    name = metric_title(run.metric) + (f" ({run.metric.unit})" if run.metric.unit else "")
    if run.comparison is not None and run.in_a_loop:
        arms, count = (run.comparison.control, run.comparison.distilled), len(run.comparison.seeds)
        control, student = (spread(arm.mean, arm.std) for arm in arms)
        return (
            f"{name}: control (the same model, trained without the teacher) {control}, student "
            f"{student}, {count} {'seed' if count == 1 else 'seeds'}, on "
            f"{integer(run.comparison.difference.examples)} {run.comparison.unit}."
        )
    if not run.evaluated:
        return ""
    words = {"control": "control (the same model, trained without the teacher)"}
    said = ", ".join(f"{words.get(role, role)} {score(scores(found))}" for role, found in run.evaluated.items())
    first = next(iter(run.evaluated.values()))[0]
    if not run.same_data:
        return f"{name}: {said}, not all on the same data, so that they do not compare."
    return f"{name}: {said}, on {_held(first)}{integer(first.data.images)} images ({first.data.place})."


def _held(evaluation: AnyEvaluation) -> str:
    """Return what the images of an evaluation hold, where that is known."""
    match evaluation:
        case DetectorEvaluation():
            return f"{integer(evaluation.data.faces)} faces in "
        case ClassifierEvaluation():
            return f"{integer(evaluation.data.classes)} classes in "
        case TaskEvaluation():
            return f"{integer(len(evaluation.by_class))} classes in " if evaluation.by_class else ""


def side_by_side(runs: Sequence[Run]) -> list[Block]:
    """Return the title of a report on several runs or counts, and a table of each kind."""
    trained = [run for run in runs if not (run.counted_only or run.scored_only)]
    scored = sum(len(run.evaluated) for run in runs if run.scored_only)
    counted = list({audit.file: audit for run in runs if run.counted_only for _, audit in run.audits}.values())
    names = [f"{len(trained)} {'run' if len(trained) == 1 else 'runs'}"] if trained else []
    if counted:
        names.append(f"{len(counted)} {'model' if len(counted) == 1 else 'models'} counted")
    if scored:
        names.append(f"{scored} {'evaluation' if scored == 1 else 'evaluations'}")
    title = f"{' and '.join(names)}{' side by side' if len(trained) > 1 else ''}"
    if not trained and not scored:
        title = f"{len(counted)} models counted, the others against `{counted[0].model}`"
    parts: list[Block] = [Heading(text=title, level=1)]
    if trained:
        header = ["run", "student", "parameters", "MACs", "metric", "control score", "student score"]
        header += ["difference", "interval", "verdict"]
        title = "All runs; a difference is that of student and control"
        rows = [_run_row(run) for run in trained]
        parts.append(Table(name="runs", title=title, header=header, rows=rows, align="llrrlrrrll"))
    if len(counted) > 1:
        parts.append(_counts_table(counted))
    return parts


def _run_row(run: Run) -> list[str]:
    total = run.budget.student.total if run.budget else None
    costs = [integer(total.params), integer(total.macs)] if total else [DASH, DASH]
    row = [f"`{run.name}`", DASH if run.in_a_loop else f"`{run.student_model}`", *costs, with_unit(run.metric)]
    if run.comparison is None:
        return [*row, DASH, score(scores(run.evaluated.get(run.roles[-1], ()))), DASH, DASH, DASH]
    control, distilled, found = run.comparison.control, run.comparison.distilled, run.comparison.difference
    return [
        *row,
        spread(control.mean, control.std),
        spread(distilled.mean, distilled.std),
        change(found.mean),
        interval(found.low, found.high),
        run.comparison.verdict,
    ]


def _counts_table(audits: Sequence[Audit]) -> Table:
    base = audits[0]
    rows = []
    for audit in audits:
        units = ((base.total.params, audit.total.params), (base.total.macs, audit.total.macs))
        costs = [(integer(after), DASH if audit is base else relative_change(one, after)) for one, after in units]
        rows.append([f"`{audit.model}`", *costs[0], *costs[1], audit.verdict])
    return Table(
        name="counts",
        title=f"All models that were counted; a change is from `{base.model}`, in % of its count",
        header=["model", "parameters", "change of parameters", "MACs", "change of MACs", "budget"],
        rows=rows,
        align="lrrrrl",
        records=[str(audit.file) for audit in audits],
    )
