"""An audit on standard output, in the format asked for."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from featherpress.budgets.auditing.audit import Audit
from featherpress.budgets.views import tables
from featherpress.budgets.views.breakdown import (
    Breakdown,
    By,
    breakdown,
    render_breakdown,
    render_breakdown_csv,
    render_breakdown_markdown,
    sort_rows,
)
from featherpress.budgets.views.junit import render_junit
from featherpress.budgets.views.layout import console_table

if TYPE_CHECKING:
    from featherpress.budgets.crosscheck.crosscheck import CrossCheck


def choose_breakdown(result: Audit, *, by: str, depth: int | None, sort: str) -> Breakdown | None:
    """Make the breakdown asked for, None for components, which are the audit's own rows.

    Errors: UsageError for an unknown order or a depth below 1.
    """
    if by == "component" and depth is None:
        return None
    kind: By = "operator" if by == "operator" else "module"
    return breakdown(result.cost, by=kind, depth=2 if depth is None else depth, sort=sort)


def sort_components(result: Audit, sort: str) -> Audit:
    """Put the components in an order.

    Errors: UsageError for an unknown order.
    """
    return result.model_copy(update={"components": tuple(sort_rows(result.components, sort))})


def print_audit(
    result: Audit,
    *,
    style: str,
    shown: Breakdown | None = None,
    cross_check: "CrossCheck | None" = None,
    verbose: bool = False,
    shapes: bool = False,
) -> None:
    """Print an audit as table, json, markdown, csv or junit; a breakdown takes the place of its components' table."""
    if style == "json":
        record = result.to_dict() | ({"view": asdict(shown)} if shown else {})
        print(json.dumps(record | ({"cross_check": cross_check.to_dict()} if cross_check else {}), indent=2))
    elif style == "table":
        console = Console()
        if shown:
            console.print(render_breakdown(shown))
        console.print(tables.render_table(result, rows=shown is None, verbose=verbose, shapes=shapes))
        if cross_check:
            console.print()
            console.print(render_cross_check(cross_check))
    elif style == "csv":
        sys.stdout.write(render_breakdown_csv(shown) if shown else tables.render_csv(result))
        # Its rows have no place for why it failed.
        sys.stderr.writelines(f"failed: {failure}\n" for failure in result.failures)
    elif style == "junit":
        sys.stdout.write(render_junit(result))
    else:
        sys.stdout.write(
            tables.render_markdown(result, verbose=verbose, shapes=shapes)
            + (f"\n{render_breakdown_markdown(shown)}" if shown else "")
        )


def render_cross_check(result: "CrossCheck") -> RenderableType:
    """Make the tables of MACs and of parameters, and the sentences, for a console."""
    lines = [f"{tool}: {distribution}" for tool, distribution in result.tools.items()]
    lines += [f"{found.component}: {found.sentence}" for found in result.disagreements]
    lines.append("every difference is explained" if result.explained else "not every difference is explained")
    macs, params = _peers(result, "MACs", "macs"), _peers(result, "parameters", "params")
    return Group(macs, Text(), params, Text(), *map(Text, lines))


def _peers(result: "CrossCheck", title: str, quantity: str) -> Table:
    """Make one table of exact numbers, with only the tools that count this quantity."""
    peers = f"peer_{quantity}"
    tools = [tool for tool, amount in getattr(result.rows[-1], peers).items() if amount is not None]
    rows = [
        (row.name, *(f"{n:,}" for n in (getattr(row, quantity), *(getattr(row, peers)[tool] for tool in tools))))
        for row in result.rows
    ]
    return console_table((title, "ours", *tools), rows)
