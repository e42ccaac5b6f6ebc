"""Audits for people: a table for terminals, Markdown, CSV.

Parameters are printed to the last digit. MACs and FLOPs are shortened to four digits in tables, never in CSV or JSON,
and no verdict is made from a shortened number.
"""

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from featherpress.budgets.auditing.audit import QUANTITIES, Audit, name_largest
from featherpress.budgets.counting.costs import format_shapes
from featherpress.budgets.counting.formulas import CONVENTION_TEXT
from featherpress.budgets.counting.memory import IDEAL_TEXT, PRECISIONS
from featherpress.budgets.views.layout import console_table, escape, markdown_table, percent
from featherpress.budgets.views.numbers import format_macs
from featherpress.records.audit import Check, Claim, Component

if TYPE_CHECKING:
    from featherpress.verdicts import GateResult

COLUMNS = ("component", "params", "%", "MACs", "FLOPs", "target", "diff", "verdict")
CLAIM_COLUMNS = ("claim about", "claimed", "counted", "diff", "verdict")
MEMORY_COLUMNS = ("ideal bytes", *PRECISIONS)
SHOWN = 3
STYLES = {"within": "green", "over": "bold red", "under": "bold red", "warn": "yellow", "equal": "green"}


def render_table(result: Audit, *, rows: bool = True) -> RenderableType:
    """Make the tables and the lines under them, for a console of any width; without `rows` no components."""
    parts: list[RenderableType] = [_components_table(result), Text()] if rows else []
    if result.claims and rows:
        parts += [_claims_table(result.claims), Text()]
    parts += [_memory_table(result), Text()]
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
        lines += [
            f"- {claim.component}: {escape(_reason(claim))}" for claim in result.claims if claim.verdict == "differs"
        ]
    lines += ["", *markdown_table(MEMORY_COLUMNS, _memory_rows(result))]
    lines += ["", *(f"- {escape(line)}" for line in _footer(result))]
    lines += [f"- note: {escape(note)}" for note in result.notes]
    lines += [f"- **failed:** {escape(failure)}" for failure in result.failures]
    return "\n".join(lines).rstrip() + "\n"


def render_csv(result: Audit) -> str:
    """Make comma-separated values: exact integers, one row per component, the total last."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["component", "params", "share", "macs", "flops", "target", "difference", "verdict"])
    for row in (*result.components, result.total):
        writer.writerow(
            [row.name, row.params, row.share, row.macs, row.flops, row.target, row.difference, row.verdict],
        )
    return stream.getvalue()


def render_junit(result: Audit) -> str:
    """Make JUnit XML: a case each for the components, the total and the claims, failed where the audit fails."""
    rows = (*result.components, result.total)
    suite = ElementTree.Element("testsuite", name=result.model, tests="0")
    left = list(result.failures)
    for row in rows:
        case = ElementTree.SubElement(suite, "testcase", classname=result.model, name=row.name)
        sentences = [failure for failure in left if failure.startswith(f"{row.name} has ")]
        left = [failure for failure in left if failure not in sentences]
        if sentences:
            ElementTree.SubElement(case, "failure", message=_verdict(row)).text = "\n".join(sentences)
        elif not row.checks:
            ElementTree.SubElement(case, "skipped", message="no limit")
    if result.accuracy is not None:
        left = [failure for failure in left if result.accuracy.sentence not in failure]
        _accuracy_case(suite, result.model, result.accuracy)
    claims = ElementTree.SubElement(suite, "testcase", classname=result.model, name="(claims)")
    if left:
        ElementTree.SubElement(claims, "failure", message="claims that differ").text = "\n".join(left)
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode") + "\n"


def _accuracy_case(suite: ElementTree.Element, model: str, found: "GateResult") -> None:
    """Add the accuracy's case, failed unless it is not worse."""
    case = ElementTree.SubElement(suite, "testcase", classname=model, name="(accuracy)")
    if found.outcome != "not worse":
        ElementTree.SubElement(case, "failure", message=found.outcome).text = found.sentence


def _components_table(result: Audit) -> Table:
    """Lay the rows out for 80 columns: a verdict is a word or two, and breaks between words."""
    rows = (*result.components, result.total)
    table = console_table(COLUMNS, title=result.model, title_justify="left", collapse_padding=True)
    table.columns[0].min_width = min(max(len(row.name) for row in rows), 20)
    table.columns[-1].min_width = max(len(line) for row in rows for line in _short_verdict(row).split("\n"))
    for row in rows:
        if row is result.total:
            table.add_row()
        verdict = Text(_short_verdict(row), style=STYLES.get(row.verdict, ""))
        table.add_row(*_cells(row, result)[:-1], verdict, style="bold" if row is result.total else None)
    return table


def _memory_table(result: Audit) -> Table:
    table = console_table(MEMORY_COLUMNS)
    for row in _memory_rows(result):
        table.add_row(*row)
    return table


def _claims_table(claims: Sequence[Claim]) -> Group:
    table = console_table(CLAIM_COLUMNS)
    for claim in claims:
        *cells, verdict = _claim_cells(claim)
        table.add_row(*cells, Text(verdict, style=STYLES.get(claim.verdict, "yellow")))
    notes = [
        Text(f"{claim.component}: {_reason(claim)}", style="dim") for claim in claims if claim.verdict == "differs"
    ]
    return Group(table, *([Text(), *notes] if notes else []))


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


def _reason(claim: Claim) -> str:
    return f"{claim.note or 'no reason is noted'} [{claim.source}]"


def _verdict(row: Component) -> str:
    """State in words how a row stands: "ok", "over by 1,234", "MACs over by 13"."""
    if not row.checks:
        return "unchecked"
    broken = [_broken(check) for check in row.checks if check.verdict != "within"]
    return "; ".join(broken) or "ok"


def _broken(check: Check) -> str:
    quantity = "" if check.quantity == "params" else f"{QUANTITIES[check.quantity]} "
    word = "warning, over" if check.verdict == "warn" else check.verdict
    return f"{quantity}{word} by {check.beyond:,}"


def _short_verdict(row: Component) -> str:
    """State it without the amount where that stands in the column of differences already, a line per quantity."""
    if row.difference is None or not row.checks:
        return _verdict(row)
    broken = [_broken(check).partition(" by ")[0] for check in row.checks if check.verdict != "within"]
    return "\n".join(broken) or "ok"


def _footer(result: Audit) -> list[str]:
    """State what was counted, how, and on what."""
    cost = result.cost
    batch = cost.inputs[0][0] if cost.inputs and cost.inputs[0] else 1
    lines = [f"verdict: {result.verdict}", *_other_limits(result)]
    lines += [
        f"convention: {CONVENTION_TEXT}",
        f"input: {format_shapes(cost.inputs) or 'none'} (batch {batch}); method: {_METHODS[cost.method]}",
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
        f"{row.name}: {check.actual:,} {QUANTITIES[check.quantity]}, {_bounds(check)}: {_broken_or_ok(check)}"
        for row in (*result.components, result.total)
        for check in row.checks
        if check.quantity != "params"
    ]


def _broken_or_ok(check: Check) -> str:
    return "ok" if check.verdict == "within" else _broken(check)


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
