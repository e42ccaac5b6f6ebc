"""How the models learned: losses and scores step by step, and how near the student came to its teacher's features."""

import tomllib
from functools import partial

from featherpress.reports.blocks import Block, Remark, Table
from featherpress.reports.figures.learning import distillation_terms, level_correlation, training_curves, was_scored
from featherpress.reports.formats import fraction, integer
from featherpress.reports.runs import CORRELATION, STEPS, Run, place, several
from featherpress.reports.sections.context import RunContext


def training(context: RunContext) -> list[Block]:
    """Show how losses and scores went."""
    run = context.run
    wanted = [role for role in run.roles if role != "teacher" and role not in run.logged]
    parts: list[Block] = [context.heading("Training")]
    if run.logged:
        seeds = several(run.logged.values())
        lines = "Thin: each seed as logged. Bold: mean over seeds" if seeds else "Thin: as logged. Bold: the same"
        caption = f"{lines}, losses smoothed over 1/25 of the steps."
        if not was_scored(run.logged):
            caption += f" No {run.metric.name} was measured between epochs."
        elif limit := _images_between_epochs(run):
            caption += f" Between epochs {run.metric.name} is that of up to {limit} images."
        if distillation_terms(run.logged.get("student", ())):
            caption += (
                " Gradient norms: how hard distillation pulls beside the task, where the student is tapped; how hard "
                "is best is not known."
            )
        draw = partial(training_curves, run.logged, metric=run.metric)
        records = context.files(run.logged, STEPS)
        figure = context.figure("training", draw, alt="Curves of the training", caption=caption, records=records)
        parts.append(figure)
    if wanted:
        missing = (f"`{place(role, STEPS)}`" for role in wanted)
        parts.append(Remark(text=f"Missing, so not drawn: {', '.join(missing)}."))
    return parts


def _images_between_epochs(run: Run) -> int:
    """Return on how many images at most a run was scored between epochs; 0 where that is all of them, or not known."""
    try:
        return int(tomllib.loads(run.recipe or "")["schedule"]["evaluate_images"])
    except (tomllib.TOMLDecodeError, LookupError, TypeError, ValueError):
        return 0


def correlation(context: RunContext) -> list[Block]:
    """Show how far each arm's features follow the teacher's, level by level."""
    run = context.run
    found = run.correlation
    if not run.distilled or (found is None and not run.finds_faces):
        return []
    parts: list[Block] = [context.heading("How far the student's features follow the teacher's")]
    if found is None or not found.roles:
        text = (
            f"`{CORRELATION}` is missing: where a loss compares features, `featherpress distill --resume` measures it "
            "from the saved weights."
        )
        return [*parts, Remark(text=text)]
    parts.append(
        context.figure(
            "correlation",
            partial(level_correlation, found),
            alt="Similarity to the teacher by level",
            caption="Linear CKA with the teacher's features, 1 where they are equal up to rotation and scale; "
            f"measured on {integer(found.images)} validation images.",
            records=[CORRELATION],
        )
    )
    rows = [[integer(level.stride), *(fraction(level.cka.get(role)) for role in found.roles)] for level in found.levels]
    header = ["stride (pixels)", *(f"CKA, {role}" for role in found.roles)]
    title = "Linear CKA with the teacher's features, by level"
    align = "r" * len(header)
    table = Table(name="correlation", title=title, header=header, rows=rows, align=align, records=[CORRELATION])
    return [*parts, table]
