"""Audits for people: a table for terminals, Markdown, CSV.

Parameters are printed to the last digit. MACs and FLOPs are shortened to four digits in tables, never in CSV or JSON,
and no verdict is made from a shortened number.
"""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from featherpress.budgets.auditing.audit import QUANTITIES, Audit, name_largest
from featherpress.budgets.counting.costs import WEIGHTS
from featherpress.budgets.counting.formulas import CONVENTION_TEXT
from featherpress.budgets.counting.memory import IDEAL_TEXT, PRECISIONS
from featherpress.budgets.views.layout import console_table, csv_table, format_macs, markdown_table, percent
from featherpress.escaping import escape_markdown
from featherpress.records.audit import Check, Claim, Component

COST_COLUMNS = ("MACs", "FLOPs")
CHECK_COLUMNS = ("target", "diff", "verdict")
WEIGHT_COLUMNS = ("bytes", "types")
SHAPE_COLUMNS = ("component", "in", "out")
CLAIM_COLUMNS = ("component", "claimed", "counted", "diff", "verdict")
MEMORY_COLUMNS = ("ideal bytes", *PRECISIONS)
SHOWN = 3
STYLES = {"within": "green", "over": "bold red", "under": "bold red", "warn": "yellow", "equal": "green"}


def render_table(result: Audit, *, rows: bool = True, verbose: bool = False, shapes: bool = False) -> RenderableType:
    """Make the tables and the lines under them, for a console of any width; without `rows` no components.

    `verbose` adds what no budget asks for: memory, the convention, the largest modules; `shapes` what goes in and out.
    """
    parts: list[RenderableType] = [_components_table(result), Text()] if rows else []
    if shapes:
        parts += [console_table(SHAPE_COLUMNS, _shape_rows(result), words=True), Text()]
    if result.claims and rows:
        cells = [_claim_cells(claim) for claim in result.claims]
        styles = [STYLES.get(claim.verdict, "yellow") for claim in result.claims]
        coloured = [[*row, Text(verdict, style=style)] for (*row, verdict), style in zip(cells, styles, strict=True)]
        parts += [Text(_claims_heading(result)), console_table(CLAIM_COLUMNS, coloured), Text()]
        reasons = [Text(reason, style="dim") for reason in _reasons(result)]
        parts += [*reasons, Text()] if reasons else []
    if verbose:
        parts += [console_table(MEMORY_COLUMNS, _memory_rows(result)), Text()]
    parts += [Text(line) for line in _footer(result, verbose=verbose)]
    parts += [] if verbose else [Text("--verbose adds memory, the convention and the largest modules", style="dim")]
    parts += [Text(f"note: {note}", style="yellow") for note in result.notes]
    parts += [Text(f"failed: {failure}", style="red") for failure in result.failures]
    return Group(*parts)


def render_brief(result: Audit) -> RenderableType:
    """Make the components' table and the verdict alone."""
    lines = [*_verdict_lines(result)]
    return Group(_components_table(result), Text(), *map(Text, [*lines, *result.failures]))


def render_markdown(result: Audit, *, verbose: bool = False, shapes: bool = False) -> str:
    """Make GitHub-flavoured Markdown, with what `render_table` has."""
    lines = [f"## {escape_markdown(result.model)}", ""]
    rows, checked = (*result.components, result.total), _has_checks(result)
    lines += markdown_table(_columns(result), [_cells(row, result, checked) for row in rows])
    if shapes:
        lines += ["", *markdown_table(SHAPE_COLUMNS, _shape_rows(result))]
    if result.claims:
        lines += ["", escape_markdown(_claims_heading(result)), ""]
        lines += [*markdown_table(CLAIM_COLUMNS, [_claim_cells(claim) for claim in result.claims]), ""]
        lines += [f"- {escape_markdown(reason)}" for reason in _reasons(result)]
    if verbose:
        lines += ["", *markdown_table(MEMORY_COLUMNS, _memory_rows(result))]
    lines += ["", *(f"- {escape_markdown(line)}" for line in _footer(result, verbose=verbose))]
    lines += [f"- note: {escape_markdown(note)}" for note in result.notes]
    lines += [f"- **failed:** {escape_markdown(failure)}" for failure in result.failures]
    return "\n".join(lines).rstrip() + "\n"


def render_csv(result: Audit) -> str:
    """Make comma-separated values: exact integers, a row per component, the total last; empty is not known."""
    known = result.cost.method != WEIGHTS
    rows = [
        [
            row.name,
            row.params,
            row.share,
            row.macs if known else None,
            row.flops if known else None,
            row.target,
            row.difference,
            row.verdict,
        ]
        for row in (*result.components, result.total)
    ]
    return csv_table(["component", "params", "share", "macs", "flops", "target", "difference", "verdict"], rows)


def _components_table(result: Audit) -> Table:
    """Lay the rows out for 80 columns: a verdict is a word or two, and breaks between words."""
    rows = (*result.components, result.total)
    checked = _has_checks(result)
    cells = [_cells(row, result, checked) for row in rows]
    verdicts = [Text(_verdict(row, short=True), style=STYLES.get(row.verdict, "")) for row in rows]
    if checked:
        cells = [[*row[:-1], verdict] for row, verdict in zip(cells, verdicts, strict=True)]
    *cells, total = cells
    table = console_table(
        _columns(result), cells, total=total, title=result.model, title_justify="left", collapse_padding=True
    )
    table.columns[0].min_width = min(max(len(row.name) for row in rows), 20)
    if checked:
        table.columns[-1].min_width = max(len(line) for verdict in verdicts for line in verdict.plain.split("\n"))
    return table


def _has_checks(result: Audit) -> bool:
    """Tell whether anything was held to a limit: without one, no column speaks of limits."""
    return any(row.checks for row in (*result.components, result.total))


def _columns(result: Audit) -> tuple[str, ...]:
    work = WEIGHT_COLUMNS if result.cost.method == WEIGHTS else COST_COLUMNS
    return ("component", "params", "%", *work, *(CHECK_COLUMNS if _has_checks(result) else ()))


def _cells(row: Component, result: Audit, checked: bool) -> list[Any]:
    """Format a row, one text per column."""
    cells = [row.name, f"{row.params:,}", percent(row.params, result.total.params)]
    if result.cost.method == WEIGHTS:
        cells += [f"{row.bytes:,}", ", ".join(row.types or ())]
    else:
        cells += [format_macs(row.macs), format_macs(row.flops)]
    if checked:
        cells.append("-" if row.target is None else f"{row.target:,}")
        cells.append("-" if row.difference is None else f"{row.difference:+,}" if row.difference else "0")
        cells.append(_verdict(row))
    return cells


def _shape_rows(result: Audit) -> list[list[str]]:
    """State what each component takes and returns at its first call."""
    return [[row.name, *(row.shapes or ("-", "-"))] for row in result.components]


def _claim_cells(claim: Claim) -> list[str]:
    unit = "" if claim.quantity == "params" else " MACs"
    difference = f"{claim.difference:+,}" if claim.difference else "0"
    return [claim.component + unit, f"{claim.claimed:,}", f"{claim.ours:,}", difference, claim.verdict]


def _documents(result: Audit) -> list[str]:
    """Name the documents that claims are of; what follows a comma is the place in one."""
    return list(dict.fromkeys((claim.source or "an unnamed source").partition(", ")[0] for claim in result.claims))


def _claims_heading(result: Audit) -> str:
    """State whose claims the table has."""
    documents = _documents(result)
    return f"What {' and '.join(documents)} {'say' if len(documents) > 1 else 'says'}, beside the count:"


def _reasons(result: Audit) -> list[str]:
    """State why each claim that differs does, and where it is made: in which document, if there are several."""
    known = "" if len(documents := _documents(result)) > 1 else f"{documents[0]}, "
    return [
        f"{claim.component}: {claim.note or 'no reason is noted'} [{(claim.source or '').removeprefix(known)}]"
        for claim in result.claims
        if claim.verdict == "differs"
    ]


def _verdict(row: Component, *, short: bool = False) -> str:
    """State in words how a row stands: "ok (±14)" within a tolerance, "over by 1,234", "MACs over by 13".

    In `short` without the amount where that stands in the column of differences already, a line per quantity.
    """
    if not row.checks:
        return "unchecked"
    broken = [_state(check) for check in row.checks if check.verdict != "within"]
    if short and row.difference is not None:
        broken = [state.partition(" by ")[0] for state in broken]
    first, *others = broken or ["ok"]
    tolerance = ("\n" if short and broken else " ").join(["", *_tolerance(row)])
    return ("\n" if short else "; ").join([first + tolerance, *others])


def _tolerance(row: Component) -> list[str]:
    """State how far parameters may lie from their target, where that is further than not at all."""
    checks = [check for check in row.checks if check.quantity == "params" and check.target is not None]
    beyond = max((check.high - check.target for check in checks if check.high and check.target is not None), default=0)
    return [f"(±{beyond:,})"] if beyond else []


def _state(check: Check) -> str:
    if check.verdict == "within":
        return "ok"
    quantity = "" if check.quantity == "params" else f"{QUANTITIES[check.quantity]} "
    word = "warning, over" if check.verdict == "warn" else check.verdict
    return f"{quantity}{word} by {check.beyond:,}"


def _verdict_lines(result: Audit) -> list[str]:
    """State the verdict, where there is one, and the limits that have no column."""
    return [f"verdict: {result.verdict}", *_other_limits(result)] if result.verdict != "unchecked" else []


def _footer(result: Audit, *, verbose: bool) -> list[str]:
    """State what was counted, how, and on what; `verbose` all that is known."""
    cost = result.cost
    batch = cost.inputs[0][0] if cost.inputs and cost.inputs[0] else 1
    source = f", {result.input_source}" if result.input_source else ""
    fed = f"input: {', '.join(cost.signature) or 'none'} (batch {batch}){source}; method: {_METHODS[cost.method]}"
    lines = [*_verdict_lines(result), *([fed] if cost.method != WEIGHTS else [])]
    states = f"{cost.trainable:,} trainable, {cost.frozen:,} frozen, {cost.unused:,} never read"
    if verbose and cost.method != WEIGHTS:
        lines += [
            f"convention: {CONVENTION_TEXT}",
            f"beside: {format_macs(cost.elementwise)} element-wise operations, not in MACs",
            f"weights: {cost.bytes:,} bytes",
            f"ideal bytes: {IDEAL_TEXT}",
            f"largest in parameters: {name_largest(cost.modules, 'params')}",
            f"largest in MACs: {name_largest(cost.modules, 'macs')}",
        ]
    if verbose or cost.frozen or cost.unused:
        lines.append(f"parameters: {states}{_named(cost.unused_names)}")
    if cost.exported:
        lines.append(f"file: {cost.exported:,} bytes, {cost.bytes:,} of them weights")
    lines += [f"{row.path}: {row.params:,} parameters" for row in cost.shared[:SHOWN]]
    return lines


def _named(names: Sequence[str]) -> str:
    """Name the first few in brackets."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})" if names else ""


def _memory_rows(result: Audit) -> list[list[str]]:
    """Format what weights and activations take at each precision."""
    cost = result.cost
    footprints = {
        "weights": cost.weight_footprint,
        "activations, peak": cost.peak_footprint,
        "activations, sum": cost.activation_footprint,
    }
    known = list(footprints.items())[: 1 if cost.method == WEIGHTS else None]
    return [[name, *(f"{getattr(held, key):,}" for key in PRECISIONS)] for name, held in known]


def _other_limits(result: Audit) -> list[str]:
    """State how the limits stand that have no column: MACs and bytes."""
    return [
        f"{row.name}: {check.actual:,} {QUANTITIES[check.quantity]}, {_bounds(check)}: {_state(check)}"
        for row in (*result.components, result.total)
        for check in row.checks
        if check.quantity != "params"
    ]


def _bounds(check: Check) -> str:
    """State a limit in words."""
    low, high = check.low, check.high
    if low is not None and high is not None:
        return f"{low:,} asked for" if low == high else f"{low:,} to {high:,} allowed"
    if high is not None:
        return f"at most {high:,} allowed"
    return f"at least {low:,} asked for" if low is not None else f"warning above {check.warn:,}"


_METHODS = {
    "meta": "meta copy, no data",
    "fake": "fake tensors, no data",
    "real": "a real run on the CPU, after meta and fake tensors failed",
    "onnx": "shapes that ONNX infers, no data",
    WEIGHTS: "none, as nothing runs",
}
