"""Audits for people: a table for terminals, Markdown, CSV.

Parameters are printed to the last digit. MACs and FLOPs are shortened to four digits in tables, never in CSV or JSON,
and no verdict is made from a shortened number.
"""

from collections.abc import Sequence
from xml.etree import ElementTree

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from featherpress.budgets.auditing.audit import QUANTITIES, Audit, name_largest
from featherpress.budgets.counting.formulas import CONVENTION_TEXT
from featherpress.budgets.counting.memory import IDEAL_TEXT, PRECISIONS
from featherpress.budgets.views.layout import console_table, csv_table, escape, format_macs, markdown_table, percent
from featherpress.records.audit import Check, Claim, Component

COLUMNS = ("component", "params", "%", "MACs", "FLOPs", "target", "diff", "verdict")
CLAIM_COLUMNS = ("claim about", "claimed", "counted", "diff", "verdict")
MEMORY_COLUMNS = ("ideal bytes", *PRECISIONS)
SHOWN = 3
STYLES = {"within": "green", "over": "bold red", "under": "bold red", "warn": "yellow", "equal": "green"}


def render_table(result: Audit, *, rows: bool = True) -> RenderableType:
    """Make the tables and the lines under them, for a console of any width; without `rows` no components."""
    parts: list[RenderableType] = [_components_table(result), Text()] if rows else []
    if result.claims and rows:
        cells = [_claim_cells(claim) for claim in result.claims]
        styles = [STYLES.get(claim.verdict, "yellow") for claim in result.claims]
        coloured = [[*row, Text(verdict, style=style)] for (*row, verdict), style in zip(cells, styles, strict=True)]
        parts += [console_table(CLAIM_COLUMNS, coloured), Text()]
        reasons = [Text(reason, style="dim") for reason in _reasons(result)]
        parts += [*reasons, Text()] if reasons else []
    parts += [console_table(MEMORY_COLUMNS, _memory_rows(result)), Text()]
    parts += [Text(line) for line in _footer(result)]
    parts += [Text(f"note: {note}", style="yellow") for note in result.notes]
    parts += [Text(f"failed: {failure}", style="red") for failure in result.failures]
    return Group(*parts)


def render_brief(result: Audit) -> RenderableType:
    """Make the components' table and the verdict alone."""
    lines = [f"verdict: {result.verdict}", *_other_limits(result)]
    return Group(_components_table(result), Text(), *map(Text, [*lines, *result.failures]))


def render_markdown(result: Audit) -> str:
    """Make GitHub-flavoured Markdown."""
    lines = [f"## {escape(result.model)}", ""]
    lines += markdown_table(COLUMNS, [_cells(row, result) for row in (*result.components, result.total)])
    if result.claims:
        lines += ["", *markdown_table(CLAIM_COLUMNS, [_claim_cells(claim) for claim in result.claims]), ""]
        lines += [f"- {escape(reason)}" for reason in _reasons(result)]
    lines += ["", *markdown_table(MEMORY_COLUMNS, _memory_rows(result))]
    lines += ["", *(f"- {escape(line)}" for line in _footer(result))]
    lines += [f"- note: {escape(note)}" for note in result.notes]
    lines += [f"- **failed:** {escape(failure)}" for failure in result.failures]
    return "\n".join(lines).rstrip() + "\n"


def render_csv(result: Audit) -> str:
    """Make comma-separated values: exact integers, one row per component, the total last."""
    rows = [
        [row.name, row.params, row.share, row.macs, row.flops, row.target, row.difference, row.verdict]
        for row in (*result.components, result.total)
    ]
    return csv_table(["component", "params", "share", "macs", "flops", "target", "difference", "verdict"], rows)


def render_junit(result: Audit) -> str:
    """Make JUnit XML: a case each for the components, the total and the claims, failed where the audit fails."""
    suite = ElementTree.Element("testsuite", name=result.model, tests="0")
    left = list(result.failures)

    def add(name: str, problem: str, text: str) -> ElementTree.Element:
        case = ElementTree.SubElement(suite, "testcase", classname=result.model, name=name)
        if problem:
            ElementTree.SubElement(case, "failure", message=problem).text = text
        return case

    for row in (*result.components, result.total):
        sentences = [failure for failure in left if failure.startswith(f"{row.name} has ")]
        left = [failure for failure in left if failure not in sentences]
        case = add(row.name, _verdict(row) if sentences else "", "\n".join(sentences))
        if not sentences and not row.checks:
            ElementTree.SubElement(case, "skipped", message="no limit")
    if accuracy := result.accuracy:
        left = [failure for failure in left if accuracy.sentence not in failure]
        add("(accuracy)", accuracy.outcome if accuracy.outcome != "not worse" else "", accuracy.sentence)
    add("(claims)", "claims that differ" if left else "", "\n".join(left))
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode") + "\n"


def _components_table(result: Audit) -> Table:
    """Lay the rows out for 80 columns: a verdict is a word or two, and breaks between words."""
    rows = (*result.components, result.total)
    verdicts = [Text(_verdict(row, short=True), style=STYLES.get(row.verdict, "")) for row in rows]
    *cells, total = ([*_cells(row, result)[:-1], verdict] for row, verdict in zip(rows, verdicts, strict=True))
    table = console_table(COLUMNS, cells, total=total, title=result.model, title_justify="left", collapse_padding=True)
    table.columns[0].min_width = min(max(len(row.name) for row in rows), 20)
    table.columns[-1].min_width = max(len(line) for verdict in verdicts for line in verdict.plain.split("\n"))
    return table


def _cells(row: Component, result: Audit) -> list[str]:
    """Format a row, one text per column."""
    return [
        row.name,
        f"{row.params:,}",
        percent(row.params, result.total.params),
        format_macs(row.macs),
        format_macs(row.flops),
        "-" if row.target is None else f"{row.target:,}",
        "-" if row.difference is None else f"{row.difference:+,}" if row.difference else "0",
        _verdict(row),
    ]


def _claim_cells(claim: Claim) -> list[str]:
    unit = "" if claim.quantity == "params" else " MACs"
    difference = f"{claim.difference:+,}" if claim.difference else "0"
    return [claim.component + unit, f"{claim.claimed:,}", f"{claim.ours:,}", difference, claim.verdict]


def _reasons(result: Audit) -> list[str]:
    """State why each claim that differs does, and who claims it."""
    return [
        f"{claim.component}: {claim.note or 'no reason is noted'} [{claim.source}]"
        for claim in result.claims
        if claim.verdict == "differs"
    ]


def _verdict(row: Component, *, short: bool = False) -> str:
    """State in words how a row stands: "ok", "over by 1,234", "MACs over by 13".

    In `short` without the amount where that stands in the column of differences already, a line per quantity.
    """
    if not row.checks:
        return "unchecked"
    broken = [_state(check) for check in row.checks if check.verdict != "within"]
    if short and row.difference is not None:
        return "\n".join(state.partition(" by ")[0] for state in broken) or "ok"
    return "; ".join(broken) or "ok"


def _state(check: Check) -> str:
    if check.verdict == "within":
        return "ok"
    quantity = "" if check.quantity == "params" else f"{QUANTITIES[check.quantity]} "
    word = "warning, over" if check.verdict == "warn" else check.verdict
    return f"{quantity}{word} by {check.beyond:,}"


def _footer(result: Audit) -> list[str]:
    """State what was counted, how, and on what."""
    cost = result.cost
    source = f", {result.input_source}" if result.input_source else ""
    batch = cost.inputs[0][0] if cost.inputs and cost.inputs[0] else 1
    lines = [f"verdict: {result.verdict}", *_other_limits(result)]
    lines += [
        f"convention: {CONVENTION_TEXT}",
        f"input: {', '.join(cost.signature) or 'none'} (batch {batch}){source}; method: {_METHODS[cost.method]}",
        f"beside: {format_macs(cost.elementwise)} element-wise operations, not in MACs; {cost.bytes:,} weight bytes",
        f"ideal bytes: {IDEAL_TEXT}",
        f"largest in parameters: {name_largest(cost.modules, 'params')}",
        f"largest in MACs: {name_largest(cost.modules, 'macs')}",
        f"parameters: {cost.trainable:,} trainable, {cost.frozen:,} frozen, {cost.unused:,} never read"
        + _named(cost.unused_names),
    ]
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
    return [[name, *(f"{getattr(held, key):,}" for key in PRECISIONS)] for name, held in footprints.items()]


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
}
