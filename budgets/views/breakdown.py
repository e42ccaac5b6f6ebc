"""A count from other sides: by module to any depth, or by operator. Rows sum to the total, by assertion."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Literal, TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from featherpress.budgets.counting.costs import ROOT, Cost, require_sums
from featherpress.budgets.views.layout import console_table, csv_table, format_macs, markdown_table, percent
from featherpress.errors import UsageError

Row = TypeVar("Row")
By = Literal["module", "operator"]
#: What rows can be sorted by, largest first; "name" goes by the alphabet, "model" leaves the model's order.
SORTS = ("model", "name", "params", "macs", "elementwise", "activations", "calls")
WORK = ("macs", "elementwise")
QUANTITIES = ("params", *WORK, "activations")
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
    require_sums(rows, cost, QUANTITIES if by == "module" else WORK, what=f"the rows by {by}")
    calls = sum(cost.operator_calls.values()) if by == "operator" else 1
    total = BreakdownRow(name="total", calls=calls, **{quantity: getattr(cost, quantity) for quantity in QUANTITIES})
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
    sums: dict[str, Counter[str]] = {}
    for row in cost.modules:
        name = row.path if row.owners else ".".join(row.path.split(".")[:depth]) or ROOT
        into = sums.setdefault(name, Counter(calls=row.calls))
        into.update({quantity: getattr(row, quantity) for quantity in QUANTITIES})
    return [
        BreakdownRow(name=name, **amounts)
        for name, amounts in sums.items()
        if any(amounts[quantity] for quantity in QUANTITIES)
    ]


def _by_operator(cost: Cost) -> list[BreakdownRow]:
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for quantity, work in zip(WORK, (cost.work, cost.elementwise_work), strict=True):
        for (_, operator), amount in work.items():
            sums[operator][quantity] += amount
    for operator, calls in cost.operator_calls.items():
        sums[operator]["calls"] = calls
    return [BreakdownRow(name=name, **amounts) for name, amounts in sums.items()]


def render_breakdown(result: Breakdown) -> RenderableType:
    """Make a table for a console."""
    *rows, total = _cells(result)
    return Group(console_table((result.by, *COLUMNS[result.by]), rows, total=total), Text())


def render_breakdown_markdown(result: Breakdown) -> str:
    """Make a table in GitHub-flavoured Markdown."""
    return "\n".join(markdown_table((result.by, *COLUMNS[result.by]), _cells(result))) + "\n"


def render_breakdown_csv(result: Breakdown) -> str:
    """Make comma-separated values, exact whole numbers."""
    return csv_table(asdict(result.total), [astuple(row) for row in (*result.rows, result.total)])


def _cells(result: Breakdown) -> list[list[str]]:
    """Format the rows, the total last, one text per column."""
    cells, total = [], result.total
    for row in (*result.rows, total):
        work = [format_macs(row.macs), format_macs(row.elementwise)]
        if result.by == "operator":
            cells.append([row.name, f"{row.calls:,}", work[0], percent(row.macs, total.macs), work[1]])
        else:
            params = [f"{row.params:,}", percent(row.params, total.params)]
            cells.append([row.name, *params, *work, format_macs(row.activations)])
    return cells
