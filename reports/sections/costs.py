"""What the models cost: where the parameters went, budgets, and claims."""

from featherpress.reports.figures import parameters_by_component, waterfall
from featherpress.reports.figures.costs import pair_components
from featherpress.reports.formats import (
    DASH,
    MINUS,
    bounds,
    change,
    integer,
    label,
    less,
    reduction,
    signed_integer,
    size,
)
from featherpress.reports.records import Audit, Check
from featherpress.reports.runs import Run
from featherpress.reports.scores import mean_score, score, scores
from featherpress.reports.sections.chapters import Chapter
from featherpress.reports.tables import bold, note, table, warning

__all__ = ["budgets", "claims", "costs", "where_parameters_went"]

UNITS = {"params": "parameters", "macs": "MACs", "bytes": "bytes"}
CONVENTIONS = {
    "core-macs": "Counted are the products of convolutions, deformable ones too, linear layers, matrix products and "
    "attention; biases, normalisation, activations and resampling are not"
}


def where_parameters_went(chapter: Chapter) -> list[str]:
    """Show the parameters of every component, and the way from the teacher's total to the student's."""
    run = chapter.run
    parts = [chapter.heading("Where the parameters went" if run.distilled else "Where the parameters are")]
    if run.budget is None:
        return [*parts, note("`budget.json` is missing: the costs of the components are not known.")]
    audits = _audits(run)
    parts.append(
        chapter.figure(
            "parameters",
            parameters_by_component(audits),
            alt="Bars of the parameters of every component",
            caption="Learnable parameters of every component, each tensor counted once.",
        )
    )
    if run.budget.teacher is not None:
        teacher, student = run.budget.teacher, run.budget.student
        parts.append(
            chapter.figure(
                "waterfall",
                waterfall(teacher, student),
                alt="Steps from the parameters of the teacher to those of the student",
                caption=f"From {integer(teacher.total.params)} to {integer(student.total.params)} parameters: "
                "what each component gave up (plain) or took on (hatched); those that did not change are left out.",
            )
        )
    return parts


def costs(chapter: Chapter) -> list[str]:
    """Set the models side by side, component by component, then as wholes."""
    run = chapter.run
    if run.budget is None:
        return []
    student = run.budget.student
    if run.budget.teacher is None:
        return [chapter.heading(f"What `{student.model}` costs"), _single_table(student), _convention(student)]
    teacher = run.budget.teacher
    parts = [chapter.heading(f"`{teacher.model}` against `{student.model}`"), _pair_table(teacher, student)]
    notes = f"{_convention(student)} A negative reduction is growth; a dash means that there was nothing to reduce."
    if run.budget.adapters is not None:
        notes += (
            f" Adapters for distillation: {integer(run.budget.adapters)} parameters, in training only; "
            "they are not in the student, not in its file and not in the table."
        )
    parts += [notes, "The models as wholes:", _whole_table(run, teacher, student)]
    return parts + [warning(text) for text in _disagreements(run)]


def budgets(chapter: Chapter) -> list[str]:
    """Say for every model whether it keeps its budget, from exact numbers."""
    audits = [audit for _, audit in _audits(chapter.run)]
    if not audits:
        return []
    parts = [chapter.heading("Budgets")]
    rows = [
        row
        for audit in audits
        for part in (*audit.components, audit.total)
        for row in (_check_row(audit.model, part.name, check) for check in part.checks)
    ]
    if rows:
        header = ["model", "component", "of", "counted", "target", f"counted {MINUS} target", "allowed", "verdict"]
        verdicts = ", ".join(f"`{audit.model}` **{audit.verdict}**" for audit in audits)
        parts += [f"Verdicts: {verdicts}.", table(header, rows, align="lllrrrll")]
    unchecked = [f"`{audit.model}`" for audit in audits if audit.verdict == "unchecked"]
    if unchecked:
        parts.append(note(f"No budget was given for {' and '.join(unchecked)}: counted, not checked."))
    return parts + [warning(f"{failure}.") for audit in audits for failure in audit.failures]


def _check_row(model: str, component: str, check: Check) -> list[str]:
    gap = None if check.target is None else check.actual - check.target
    row = [f"`{model}`", label(component), UNITS.get(check.quantity, check.quantity), integer(check.actual)]
    row += [integer(check.target), signed_integer(gap), bounds(check.low, check.high), check.verdict]
    return bold(row) if component == "total" else row


def claims(chapter: Chapter) -> list[str]:
    """Set what documents say beside what was counted."""
    rows = [
        [
            f"`{audit.model}`",
            " + ".join(label(name) for name in claim.component.split(" + ")),
            UNITS.get(claim.quantity, claim.quantity),
            integer(claim.claimed),
            integer(claim.measured),
            signed_integer(claim.measured - claim.claimed),
            claim.why or ("equal" if claim.measured == claim.claimed else DASH),
            claim.source or DASH,
        ]
        for _, audit in _audits(chapter.run)
        for claim in audit.claims
    ]
    if not rows:
        return []
    header = [
        "model",
        "component",
        "of",
        "claimed",
        "measured",
        f"measured {MINUS} claimed",
        "why they differ",
        "source",
    ]
    return [chapter.heading("Claims checked"), table(header, rows, align="lllrrrll")]


def _audits(run: Run) -> list[tuple[str, Audit]]:
    if run.budget is None:
        return []
    teacher = run.budget.teacher
    if teacher is None:
        return [("model", run.budget.student)]
    return [("teacher", teacher), ("student", run.budget.student)]


def _convention(audit: Audit) -> str:
    sign = " \N{MULTIPLICATION SIGN} "
    shapes = " and ".join(sign.join(str(side) for side in shape) for shape in audit.inputs)
    convention = CONVENTIONS.get(audit.convention, f"Convention: {audit.convention}")
    return f"MACs (multiply-accumulates) for an input of {shapes}; FLOPs are twice as many. {convention}."


def _pair_table(teacher: Audit, student: Audit) -> str:
    pairs = pair_components(teacher, student)
    rows = [_pair_row(label(p.name), p.params, p.macs) for p in pairs]
    total = _pair_row("total", (teacher.total.params, student.total.params), (teacher.total.macs, student.total.macs))
    columns = [f"{role} {unit}" for unit in ("parameters", "MACs") for role in ("teacher", "student", "reduction of")]
    header = ["component", *columns]
    return table(header, [*rows, bold(total)], align="lrrrrrr")


def _pair_row(name: str, params: tuple[int, int], macs: tuple[int, int]) -> list[str]:
    return [
        name,
        *(integer(value) for value in params),
        reduction(*params),
        *(integer(value) for value in macs),
        reduction(*macs),
    ]


def _single_table(audit: Audit) -> str:
    rows = [[label(c.name), integer(c.params), integer(c.macs)] for c in audit.components]
    total = bold(["total", integer(audit.total.params), integer(audit.total.macs)])
    return table(["component", "parameters", "MACs"], [*rows, total], align="lrr")


def _whole_table(run: Run, teacher: Audit, student: Audit) -> str:
    a, b = teacher.total, student.total
    files = [next((e.file_bytes for e in run.evaluations(role)), None) for role in ("teacher", "student")]
    rows = [
        ["parameters", integer(a.params), integer(b.params), less(a.params, b.params)],
        ["MACs", integer(a.macs), integer(b.macs), less(a.macs, b.macs)],
        ["weight file", *(size(count) for count in files), less(*files)],
    ]
    heights = dict.fromkeys(bucket.name for role in run.roles for e in run.evaluations(role) for bucket in e.buckets)
    for name in (None, *heights):
        first, second = (scores(run.evaluations(role), name) for role in ("teacher", "student"))
        before, after = mean_score(first), mean_score(second)
        gap = DASH if before is None or after is None else change(after - before)
        text = "AP, all faces" if name is None else f"AP, faces {name} px"
        rows.append([text, score(first), score(second), gap])
    header = ["", f"teacher `{teacher.model}`", f"student `{student.model}`", "student against teacher"]
    return table(header, rows, align="lrrr")


def _disagreements(run: Run) -> list[str]:
    """Return a sentence for every evaluated model that is not the one that was counted."""
    sentences = []
    for role, audit in _audits(run):
        for evaluation in run.evaluations(role):
            if evaluation.params != audit.total.params:
                sentences.append(
                    f"The {role} that was counted, `{audit.model}`, has {integer(audit.total.params)} parameters; "
                    f"the one that was evaluated, `{evaluation.model}`, has {integer(evaluation.params)}."
                )
                break
    return sentences
