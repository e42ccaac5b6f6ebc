"""A count from other sides: by module to any depth, or by operator. Rows sum to the total, by assertion."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from featherpress.budgets.counting.costs import ROOT, Cost
from featherpress.budgets.views.layout import console_table, markdown_table, percent
from featherpress.budgets.views.numbers import format_macs
from featherpress.errors import CountError, UsageError

Row = TypeVar("Row")
By = Literal["module", "operator"]
#: What rows can be sorted by, largest first; "name" goes by the alphabet, "model" leaves the model's order.
SORTS = ("model", "name", "params", "macs", "elementwise", "activations", "calls")
COLUMNS = {
    "module": ("params", "%", "MACs", "element-wise", "act. bytes"),
    "operator": ("calls", "MACs", "%", "element-wise"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakdownRow:
    """One module with all below it, or one operator; `activations` in bytes, `calls` of forwards or of the operator."""

    name: str
    params: int = 0
    macs: int = 0
    elementwise: int = 0
    activations: int = 0
    calls: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """Rows, and the total that they sum to."""

    by: By
    rows: tuple[BreakdownRow, ...]
    total: BreakdownRow


def breakdown(cost: Cost, *, by: By = "module", depth: int = 1, sort: str = "model") -> Breakdown:
    """Sort a count's rows by module, to a depth of the tree, or by operator.

    A module at the depth stands for everything below it; above it, a module has a row for what it holds itself.
    Errors: UsageError for a depth below 1 or an unknown sort.
    """
    if depth < 1:
        raise UsageError(f"depth is at least 1, got {depth}")
    rows = _by_module(cost, depth) if by == "module" else _by_operator(cost)
    summed = ["params", "macs", "elementwise", "activations"] if by == "module" else ["macs", "elementwise"]
    for quantity in summed:
        parts, whole = sum(getattr(row, quantity) for row in rows), getattr(cost, quantity)
        if parts != whole:
            raise CountError(
                f"the rows by {by} sum to {parts:,} {quantity}, not {whole:,}: this is a bug in featherpress"
            )
    total = BreakdownRow(
        name="total",
        params=cost.params,
        macs=cost.macs,
        elementwise=cost.elementwise,
        activations=cost.activations,
        calls=sum(cost.operator_calls.values()) if by == "operator" else 1,
    )
    return Breakdown(by=by, rows=tuple(sort_rows(rows, sort)), total=total)


def sort_rows(rows: Sequence[Row], sort: str) -> list[Row]:
    """Put rows in the order asked for; those that are equal stay as they are.

    Errors: UsageError for an unknown order.
    """
    if sort not in SORTS:
        raise UsageError(f"cannot sort by {sort!r}; expected one of {', '.join(SORTS)}")
    if sort == "model":
        return list(rows)
    if sort == "name":
        return sorted(rows, key=lambda row: str(getattr(row, "name", "")))
    return sorted(rows, key=lambda row: -getattr(row, sort, 0))


def _by_module(cost: Cost, depth: int) -> list[BreakdownRow]:
    sums: dict[str, dict[str, int]] = {}
    for row in cost.modules:
        name = row.path if row.owners else ".".join(row.path.split(".")[:depth]) or ROOT
        into = sums.setdefault(name, {"calls": row.calls})
        for quantity in ("params", "macs", "elementwise", "activations"):
            into[quantity] = into.get(quantity, 0) + getattr(row, quantity)
    rows = [BreakdownRow(name=name, **amounts) for name, amounts in sums.items()]
    return [row for row in rows if row.params or row.macs or row.elementwise or row.activations]


def _by_operator(cost: Cost) -> list[BreakdownRow]:
    sums: dict[str, dict[str, int]] = {}
    for quantity, work in (("macs", cost.work), ("elementwise", cost.elementwise_work)):
        for (_, operator), amount in work.items():
            into = sums.setdefault(operator, {})
            into[quantity] = into.get(quantity, 0) + amount
    names = dict.fromkeys([*sums, *cost.operator_calls])
    return [BreakdownRow(name=name, calls=cost.operator_calls[name], **sums.get(name, {})) for name in names]


def render_breakdown(result: Breakdown) -> RenderableType:
    """Make a table for a console."""
    table = console_table((result.by, *COLUMNS[result.by]))
    for row in result.rows:
        table.add_row(row.name, *_cells(row, result))
    table.add_row()
    table.add_row("total", *_cells(result.total, result), style="bold")
    return Group(table, Text())


def render_breakdown_markdown(result: Breakdown) -> str:
    """Make a table in GitHub-flavoured Markdown."""
    rows = [[row.name, *_cells(row, result)] for row in (*result.rows, result.total)]
    return "\n".join(markdown_table((result.by, *COLUMNS[result.by]), rows)) + "\n"


def render_breakdown_csv(result: Breakdown) -> str:
    """Make comma-separated values, exact whole numbers."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(asdict(result.total)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in (*result.rows, result.total))
    return stream.getvalue()


def _cells(row: BreakdownRow, result: Breakdown) -> list[str]:
    total = result.total
    work = [format_macs(row.macs), format_macs(row.elementwise)]
    if result.by == "operator":
        return [f"{row.calls:,}", work[0], percent(row.macs, total.macs), work[1]]
    return [f"{row.params:,}", percent(row.params, total.params), *work, format_macs(row.activations)]
