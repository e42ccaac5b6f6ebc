"""A cross-check on a console."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from featherpress.budgets.crosscheck.counters import COUNTERS
from featherpress.budgets.crosscheck.crosscheck import CrossCheck
from featherpress.budgets.views.layout import console_table


def render_cross_check(result: CrossCheck) -> RenderableType:
    """Make the tables of MACs and of parameters, and the sentences, for a console."""
    parts: list[RenderableType] = [
        _table(result, "MACs", "macs"),
        Text(),
        _table(result, "parameters", "params"),
        Text(),
    ]
    parts += [Text(f"{tool}: {distribution}") for tool, distribution in result.tools.items()]
    parts += [Text(f"{found.component}: {found.sentence}") for found in result.disagreements]
    parts.append(Text("every difference is explained" if result.explained else "not every difference is explained"))
    return Group(*parts)


def _table(result: CrossCheck, title: str, quantity: str) -> Table:
    """Make one table of exact numbers, with only the tools that count this quantity."""
    tools = [tool for tool in COUNTERS if getattr(result.rows[-1], f"peer_{quantity}")[tool] is not None]
    table = console_table((title, "ours", *tools))
    for row in result.rows:
        peer = getattr(row, f"peer_{quantity}")
        table.add_row(row.name, f"{getattr(row, quantity):,}", *(f"{peer[tool]:,}" for tool in tools))
    return table
