"""A recount as a table, Markdown or CSV."""

from rich.console import Group, RenderableType
from rich.text import Text

from featherpress.budgets.recount.judging import MEANINGS, Recount, RecountRow
from featherpress.budgets.views.layout import console_table, csv_table, markdown_table
from featherpress.escaping import escape_markdown

_SHOWN = 20


def render_recount(result: Recount, *, most: int = _SHOWN) -> RenderableType:
    """Lay out the summary, and the rows that deviate most."""
    rows = [row for row in result.rows if row.verdict != "equal"]
    cells = [[row.name, _deviation(row), f"{MEANINGS[row.verdict]}: {row.reason}"] for row in rows[:most]]
    parts: list[RenderableType] = [Text(summarize(result))]
    if cells:
        parts += [Text(), console_table(("model", "deviation", "verdict"), cells, wrap=True)]
    if len(rows) > most:
        parts.append(
            Text(f"and {len(rows) - most:,} more rows that deviate less: --format csv, markdown or json has all")
        )
    return Group(*parts)


def summarize(result: Recount) -> str:
    """State in a sentence how many rows there are of each verdict, and the columns' units."""
    counts = "; ".join(f"{result.summary[each]:,} {MEANINGS[each]}" for each in MEANINGS if each in result.summary)
    units = ", ".join(f"{quantity} in {unit}" for quantity, unit in result.units.items())
    return f"{result.table}: {len(result.rows):,} rows, {units}: {counts}"


def recount_markdown(result: Recount) -> str:
    """Lay out all rows as Markdown."""
    header = ("model", "input", "params", "published", "MACs", "published", "deviation", "verdict")
    rows = []
    for row in result.rows:
        amounts = ["" if amount is None else f"{amount:,}" for amount in (row.params, row.macs)]
        claimed = [row.claimed.get(quantity, "") for quantity in ("params", "macs")]
        verdict = ": ".join(filter(None, (MEANINGS[row.verdict], row.reason)))
        rows.append([row.name, row.input, amounts[0], claimed[0], amounts[1], claimed[1], _deviation(row), verdict])
    return "\n".join([f"{escape_markdown(summarize(result))}.", "", *markdown_table(header, rows)]) + "\n"


def recount_csv(result: Recount) -> str:
    """Lay out all rows as CSV, numbers whole."""
    plain, claimed = ("line", "name", "input", "params", "macs", "deviation", "verdict", "reason"), ("params", "macs")
    header = (*plain, *(f"claimed_{name}" for name in claimed))
    cells = ([*(getattr(row, name) for name in plain), *map(row.claimed.get, claimed)] for row in result.rows)
    return csv_table(header, cells)


def _deviation(row: RecountRow) -> str:
    return "" if row.deviation is None else f"{row.deviation:+.2%}"
