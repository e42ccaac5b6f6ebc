"""An audit on standard output, in the format asked for."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console

from featherpress.budgets.auditing.audit import Audit
from featherpress.budgets.views import tables
from featherpress.budgets.views.breakdown import (
    Breakdown,
    breakdown,
    render_breakdown,
    render_breakdown_csv,
    render_breakdown_markdown,
    sort_rows,
)

if TYPE_CHECKING:
    from featherpress.budgets.crosscheck.crosscheck import CrossCheck


def choose_breakdown(result: Audit, *, by: str, depth: int | None, sort: str) -> Breakdown | None:
    """Make the breakdown asked for, None for components, which are the audit's own rows.

    Errors: UsageError for an unknown order or a depth below 1.
    """
    if by == "operator":
        return breakdown(result.cost, by="operator", sort=sort)
    if by == "module" or depth is not None:
        return breakdown(result.cost, by="module", depth=2 if depth is None else depth, sort=sort)
    return None


def sort_components(result: Audit, sort: str) -> Audit:
    """Put the components in an order.

    Errors: UsageError for an unknown order.
    """
    return result.model_copy(update={"components": tuple(sort_rows(result.components, sort))})


def print_audit(
    result: Audit, *, style: str, shown: Breakdown | None = None, cross_check: "CrossCheck | None" = None
) -> None:
    """Print an audit as table, json, markdown, csv or junit; a breakdown takes the place of its components' table."""
    if style == "json":
        record = result.to_dict() | ({"view": asdict(shown)} if shown else {})
        print(json.dumps(record | ({"cross_check": cross_check.to_dict()} if cross_check else {}), indent=2))
    elif style == "table":
        console = Console()
        if shown:
            console.print(render_breakdown(shown))
        console.print(tables.render_table(result, rows=shown is None))
        if cross_check:
            from featherpress.budgets.views.cross_check import render_cross_check  # noqa: PLC0415 - three other counters

            console.print()
            console.print(render_cross_check(cross_check))
    else:
        sys.stdout.write(_text(result, style, shown))
        if style == "csv":
            # Its rows have no place for why it failed.
            sys.stderr.writelines(f"failed: {failure}\n" for failure in result.failures)


def _text(result: Audit, style: str, shown: Breakdown | None) -> str:
    if style == "csv":
        return render_breakdown_csv(shown) if shown else tables.render_csv(result)
    if style == "junit":
        return tables.render_junit(result)
    return tables.render_markdown(result) + (f"\n{render_breakdown_markdown(shown)}" if shown else "")
