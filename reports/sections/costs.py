"""What the models cost: component by component, as wholes, and what they are built from."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from featherpress.records.audit import Audit, Component, Model
from featherpress.reports.blocks import Block, Paragraph, Remark, Table, bold
from featherpress.reports.figures.costs import costs_by_component, pair_components, waterfall
from featherpress.reports.formats import (
    DASH,
    MINUS,
    change,
    integer,
    label,
    less,
    milliseconds,
    relative_change,
    size,
)
from featherpress.reports.metrics import mean_score, score, scores, with_unit
from featherpress.reports.runs import BUDGET, EVALUATION, Run, target
from featherpress.reports.sections.context import RunContext

CONVENTIONS = {
    "core-macs": "Counted are the products of convolutions, deformable ones too, linear layers, matrix products and "
    "attention; biases, normalisation, activations and resampling are not"
}
# Settings that the source document's own table has, and their names there.
SIZES = {"out_channels": "width of the pyramid (channels)", "bifpn_repeats": "BiFPN repeats"}


def where_parameters_went(context: RunContext) -> list[Block]:
    """Show what every component costs, and the way from one model's parameters to the other's."""
    audits, records = context.run.audits, counted_in(context.run)
    compared = len(audits) == 2
    parts: list[Block] = [context.heading("Where the parameters went" if compared else "Where the parameters are")]
    if not audits:
        return [*parts, Remark(text=f"`{BUDGET}` is missing: the costs of the components are not known.")]
    if not any(audit.components for _, audit in audits):
        return [*parts, Paragraph(text="There is no component that costs anything.")]
    parts.append(
        context.figure(
            "costs",
            partial(costs_by_component, audits),
            alt="Bars of the parameters and the MACs of every component",
            caption="Parameters of every component, each tensor counted once, and its multiply-accumulates "
            f"for an input of {_shapes(audits[-1][1])}.",
            records=records,
        )
    )
    if compared:
        first, second = (audit for _, audit in audits)
        parts.append(
            context.figure(
                "waterfall",
                partial(waterfall, *audits),
                alt=f"Steps from the parameters of {first.model} to those of {second.model}",
                caption=f"From {integer(first.total.params)} to {integer(second.total.params)} parameters: "
                "what each component gave up (plain) or took on (hatched); those that did not change are left out.",
                records=records,
            )
        )
    return parts


def costs(context: RunContext) -> list[Block]:
    """Set the models side by side, component by component, then as wholes."""
    run = context.run
    if not run.audits:
        return []
    (one, first), (other, second) = run.audits[0], run.audits[-1]
    if first is second:
        heading = context.heading(f"What `{first.model}` costs")
        return [heading, _components_table(run), Paragraph(text=_convention(first))]
    one, other = _called(run)
    notes = (
        f"A change is that from {one} to {other}, in % of the former: {MINUS} is fewer, + is more, and new is "
        f"what only the latter has. {_convention(first)}"
    )
    if run.budget is not None and run.budget.adapters is not None:
        notes += (
            f" Adapters for distillation: {integer(run.budget.adapters.params)} parameters, in training only; "
            "they are not in the student, not in its file and not in the table."
        )
    return [
        context.heading(f"`{first.model}` against `{second.model}`"),
        _components_table(run),
        Paragraph(text=notes),
        _whole_table(context, first, second),
        *(Remark(text=text) for text in _missing(context)),
        *(Remark(text=text, kind="warning") for text in _disagreements(run)),
    ]


def architecture(context: RunContext) -> list[Block]:
    """Set what the models are built from side by side."""
    known = [context.sources.settings_of(audit) for _, audit in context.run.audits]
    keys = dict.fromkeys(key for settings in known for key in settings)
    if not keys:
        return []
    rows = [[f"`{key}`", *(f"`{each[key]}`" if key in each else DASH for each in known)] for key in keys]
    header = ["setting", *(f"`{audit.model}`" for _, audit in context.run.audits)]
    title, align = "What the models are built from", "l" * len(header)
    records = [*counted_in(context.run), *(str(each.file) for each in context.sources.named if isinstance(each, Model))]
    table = Table(name="architecture", title=title, header=header, rows=rows, align=align, records=records)
    return [context.heading("Architecture"), table]


def counted_in(run: Run) -> list[str]:
    """Return the files that the audits of a run stand in, as the report names them."""
    return [str(audit.file) if run.counted_only else BUDGET for _, audit in run.audits]


def _shapes(audit: Audit) -> str:
    sign = " \N{MULTIPLICATION SIGN} "
    return " and ".join(sign.join(str(side) for side in shape) for shape in audit.inputs)


def _convention(audit: Audit) -> str:
    convention = CONVENTIONS.get(audit.convention, f"Convention: {audit.convention}")
    return f"MACs (multiply-accumulates) for an input of {_shapes(audit)}; FLOPs are twice as many. {convention}."


def _called(run: Run) -> list[str]:
    """Return what to call both models: by their names, of a run by what they are in it."""
    alike = len({audit.model for _, audit in run.audits}) < len(run.audits)
    return [f"`{audit.model}`" if run.counted_only and not alike else role for role, audit in run.audits]


def _in_full(run: Run) -> list[str]:
    names = [f"`{audit.model}`" for _, audit in run.audits]
    return [name if name == called else f"{called} {name}" for name, called in zip(names, _called(run), strict=True)]


def _components_table(run: Run) -> Table:
    """Return what every component costs, in one model or in both with the change from the first."""
    (_, first), (_, second) = run.audits[0], run.audits[-1]
    title, columns = f"Cost of every component of `{first.model}`", ["parameters", "MACs"]
    if first is not second:
        title = f"Cost of every component of {' and '.join(_in_full(run))}"
        columns = [f"{name} {unit}" for unit in columns for name in (*_called(run), "change of")]
    pairs = [*pair_components(first, second).items(), ("total", (first.total, second.total))]
    rows = [[label(name), *_counts(*pair)] for name, pair in pairs]
    return Table(
        name="components",
        title=title,
        header=["component", *columns],
        rows=[*rows[:-1], bold(rows[-1])],
        align="l" + "r" * len(columns),
        records=counted_in(run),
        pinned="last",
    )


def _counts(before: Component, after: Component) -> list[str]:
    if before is after:
        return [integer(before.params), integer(before.macs)]
    units = ((before.params, after.params), (before.macs, after.macs))
    return [cell for pair in units for cell in (*map(integer, pair), relative_change(*pair))]


def _whole_table(context: RunContext, first: Audit, second: Audit) -> Table:
    run, (one, other) = context.run, [role for role, _ in context.run.audits]
    a, b = first.total, second.total
    rows = [
        _row("parameters", integer, a.params, b.params),
        _row("MACs", integer, a.macs, b.macs),
        *_size_rows(context, first, second),
    ]
    evaluated = [role for role in (one, other) if role in run.evaluated]
    if not run.counted_only:
        files = (run.evaluated[role][0].file_bytes if role in evaluated else None for role in (one, other))
        rows.append(_row("weight file", size, *files))
    timed = _latency_rows(context, first, second)
    rows += [*timed, *_score_rows(run)]
    header = ["measure", *_in_full(run), " against ".join(reversed(_called(run)))]
    records = [*counted_in(run), *context.files(evaluated, EVALUATION)]
    records += [str(bench.file) for bench in context.sources.benches if timed]
    title = "The models as wholes"
    if evaluated:
        title += f"; differences in {run.metric.name} have no interval here"
    return Table(name="wholes", title=title, header=header, rows=rows, align="lrrr", records=records)


def _row(text: str, show: Callable[[Any], str], *pair: float | None) -> list[str]:
    """Return two values, and by how much less or more the second is."""
    return [text, *map(show, pair), less(*pair)]


def _size_rows(context: RunContext, first: Audit, second: Audit) -> list[list[str]]:
    """Return the sizes that the source document's table has, where a record says them."""
    rows = []
    for key, text in SIZES.items():
        values = [context.sources.settings_of(audit).get(key, "") for audit in (first, second)]
        if any(values):
            rows.append(_row(text, integer, *(int(value) if value.isdecimal() else None for value in values)))
    return rows


def _latency_rows(context: RunContext, first: Audit, second: Audit) -> list[list[str]]:
    """Return a row for every setting in which one benchmark timed both models."""
    rows = []
    for bench in context.sources.benches:
        alone = replace(context.sources, benches=[bench])
        one, other = (alone.times_of(audit.model, audit.total.params) for audit in (first, second))
        for backend, side, batch in (setting for setting in one if setting in other):
            pair = (found[backend, side, batch] for found in (one, other))
            rows.append(_row(f"latency, {backend}, {side} px, batch {batch}", milliseconds, *pair))
    return rows


def _score_rows(run: Run) -> list[list[str]]:
    if run.counted_only:
        return []
    rows = []
    heights = dict.fromkeys(bucket.name for found in run.detectors.values() for e in found for bucket in e.by_height)
    for name in (None, *heights):
        first, second = (scores(run.evaluated.get(role, ()), name) for role in ("teacher", "student"))
        before, after = mean_score(first), mean_score(second)
        gap = DASH if before is None or after is None else change(after - before)
        text = _whole(run) if name is None else f"AP, faces {name} px"
        rows.append([text, score(first), score(second), gap])
    return rows


def _whole(run: Run) -> str:
    return "AP, all faces" if run.detectors else with_unit(run.metric)


def _missing(context: RunContext) -> list[str]:
    """Say which rows of the table of wholes have no record, and what writes one."""
    models = [audit.model for _, audit in context.run.audits]
    texts = []
    # A target of another package has no settings that the zoo could show.
    if not all(model in context.sources.settings or ":" in model for model in models):
        show = "`featherpress models show NAME --json`"
        texts.append(
            f"Widths and repeats are not in the records: give the output of {show} of both models beside the run."
        )
    if not all(context.sources.times_of(audit.model, audit.total.params) for _, audit in context.run.audits):
        # What one factory builds is told apart by its weights, which say the settings.
        alike = len(set(map(target, models))) < len(models)
        asked = " ".join(f"{target(model)}@WEIGHTS" if alike else model for model in models)
        texts.append(
            f"No latency of both models was given: measure `featherpress bench {asked} --json`, and give "
            "the record beside the run or save it in its folder."
        )
    return texts


def _disagreements(run: Run) -> list[str]:
    """Return a sentence for every evaluated model that is not the one that was counted."""
    sentences = []
    for role, audit in run.audits:
        other = next((e for e in run.evaluated.get(role, ()) if e.params != audit.total.params), None)
        if other is not None:
            sentences.append(
                f"The {role} that was counted, `{audit.model}`, has {integer(audit.total.params)} parameters; "
                f"the one that was evaluated, `{other.model}`, has {integer(other.params)}."
            )
    return sentences
