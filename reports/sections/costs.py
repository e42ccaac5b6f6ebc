"""What the models cost: where the parameters went, budgets, and claims."""

from featherpress.reports.figures import parameters_by_component, waterfall
from featherpress.reports.figures.costs import pair_components
from featherpress.reports.formats import (
    DASH,
    MINUS,
    change,
    integer,
    label,
    less,
    reduction,
    signed_integer,
    size,
)
from featherpress.reports.records import Audit
from featherpress.reports.runs import Run
from featherpress.reports.scores import mean_score, score, scores
from featherpress.reports.sections.chapters import Chapter
from featherpress.reports.tables import bold, note, table, warning

__all__ = ["budgets", "claims", "costs", "where_parameters_went"]


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
                alt="Steps from the teacher's parameters down to the student's",
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
    if chapter.run.budget is None:
        return []
    audits = [audit for _, audit in _audits(chapter.run)]
    rows = []
    for audit in audits:
        checked = [c for c in audit.components if c.target is not None or c.verdict != "unchecked"]
        for part in (*checked, audit.total):
            row = [label(part.name), integer(part.params), integer(part.target), signed_integer(part.difference)]
            row = [f"`{audit.model}`", *row, part.verdict]
            rows.append(bold(row) if part is audit.total else row)
    header = ["model", "component", "parameters", "target", f"parameters {MINUS} target", "verdict"]
    parts = [chapter.heading("Budgets"), table(header, rows, align="llrrrl")]
    unchecked = [f"`{audit.model}`" for audit in audits if audit.verdict == "unchecked"]
    if unchecked:
        parts.append(note(f"No budget was given for {' and '.join(unchecked)}: counted, not checked."))
    return parts


def claims(chapter: Chapter) -> list[str]:
    """Set what documents say beside what was counted."""
    if chapter.run.budget is None:
        return []
    rows = [
        [
            f"`{audit.model}`",
            label(claim.component),
            integer(claim.claimed),
            integer(claim.measured),
            signed_integer(claim.measured - claim.claimed),
            claim.why or DASH,
        ]
        for _, audit in _audits(chapter.run)
        for claim in audit.claims
    ]
    if not rows:
        return []
    header = ["model", "component", "claimed", "measured", f"measured {MINUS} claimed", "why they differ"]
    sources = sorted({c.source for _, audit in _audits(chapter.run) for c in audit.claims if c.source})
    parts = [chapter.heading("Claims checked"), table(header, rows, align="llrrrl")]
    return [*parts, f"All numbers are parameters. Claimed by: {'; '.join(sources)}."] if sources else parts


def _audits(run: Run) -> list[tuple[str, Audit]]:
    if run.budget is None:
        return []
    teacher = run.budget.teacher
    if teacher is None:
        return [("model", run.budget.student)]
    return [("teacher", teacher), ("student", run.budget.student)]


def _convention(audit: Audit) -> str:
    shape = " \N{MULTIPLICATION SIGN} ".join(str(side) for side in audit.input)
    text = f"MACs (multiply-accumulates) for one input of {shape}; FLOPs are twice as many."
    return f"{text} Convention: {audit.convention.rstrip('.')}." if audit.convention else text


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
