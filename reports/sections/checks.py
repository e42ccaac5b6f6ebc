"""What was promised of the models: budgets, and what documents claim."""

from featherpress.records.audit import Audit, Check, Component
from featherpress.reports.blocks import Block, Paragraph, Remark, Table, bold
from featherpress.reports.formats import DASH, MINUS, bounds, integer, label, signed_integer
from featherpress.reports.sections.context import RunContext
from featherpress.reports.sections.costs import counted_in

UNITS = {"params": "parameters", "macs": "MACs", "bytes": "bytes"}


def budgets(context: RunContext) -> list[Block]:
    """Say for every model whether it keeps its budget, from exact numbers."""
    audits = [audit for _, audit in context.run.audits]
    if not audits:
        return []
    parts: list[Block] = [context.heading("Budgets")]
    rows = [_check_row(audit.model, part.name, check) for audit in audits for part, check in _deviations_first(audit)]
    if rows:
        header = ["model", "component", "of", "counted", "target", f"counted {MINUS} target", "allowed", "verdict"]
        verdicts = ", ".join(f"`{audit.model}` **{audit.verdict}**" for audit in audits)
        title = "Every limit of the budgets, and what was counted; what deviates first, model by model"
        records = counted_in(context.run)
        table = Table(name="budgets", title=title, header=header, rows=rows, align="lllrrrll", records=records)
        parts += [Paragraph(text=f"Verdicts: {verdicts}."), table]
    unchecked = [f"`{audit.model}`" for audit in audits if audit.verdict == "unchecked"]
    if unchecked:
        parts.append(Remark(text=f"No budget was given for {' and '.join(unchecked)}: counted, not checked."))
    return [*parts, *(Remark(text=f"{each}.", kind="warning") for audit in audits for each in audit.failures)]


def _deviations_first(audit: Audit) -> list[tuple[Component, Check]]:
    checks = [(part, check) for part in (*audit.components, audit.total) for check in part.checks]
    return sorted(checks, key=lambda pair: (pair[1].verdict == "within", pair[1].actual == pair[1].target))


def _check_row(model: str, component: str, check: Check) -> list[str]:
    gap = None if check.target is None else check.actual - check.target
    row = [f"`{model}`", label(component), UNITS.get(check.quantity, check.quantity), integer(check.actual)]
    row += [integer(check.target), signed_integer(gap), bounds(check.low, check.high), check.verdict]
    return bold(row) if component == "total" else row


def claims(context: RunContext) -> list[Block]:
    """Set what documents say beside what was counted."""
    rows = [
        [
            f"`{audit.model}`",
            " + ".join(label(name) for name in claim.component.split(" + ")),
            UNITS.get(claim.quantity, claim.quantity),
            integer(claim.claimed),
            integer(claim.ours),
            signed_integer(claim.ours - claim.claimed),
            claim.note or ("equal" if claim.ours == claim.claimed else DASH),
            claim.source or DASH,
        ]
        for _, audit in context.run.audits
        for claim in audit.claims
    ]
    if not rows:
        return []
    difference = f"measured {MINUS} claimed"
    header = ["model", "component", "of", "claimed", "measured", difference, "why they differ", "source"]
    title = "What documents claim, and what was counted"
    records = counted_in(context.run)
    table = Table(name="claims", title=title, header=header, rows=rows, align="lllrrrll", records=records)
    return [context.heading("Claims checked"), table]
