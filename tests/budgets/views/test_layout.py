"""Tables on a console: long ones are laid out by one row, and look as rich lays them out."""

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from featherpress.budgets.views import layout

ROWS: list[list[Any]] = [[f"blocks.{i}", f"{i * 37 % 1001:,}", "x" * (i % 7), "0", ""] for i in range(45)]
TOTAL = ("total", "9", "", "1", "")


def show(width: int, rows: list[list[Any]], total: tuple[str, ...], **options: Any) -> str:
    stream = io.StringIO()
    table = layout.console_table(("component", "params", "in", "n", "v"), rows, total=total, **options)
    table.columns[0].min_width = 12
    Console(file=stream, width=width, force_terminal=True).print(table)
    return stream.getvalue()


@pytest.mark.parametrize("width", [16, 31, 120])
@pytest.mark.parametrize("total", [(), TOTAL], ids=["", "total"])
@pytest.mark.parametrize("options", [{}, {"title": "net", "title_justify": "left", "collapse_padding": True}])
@pytest.mark.parametrize("odd", [None, "[red]a", ":smile:", "größer", "two\nlines", Text("within", style="green"), ""])
def test_long_tables_are_as_rich_lays_them_out(
    width: int, total: tuple[str, ...], options: dict[str, Any], odd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any width, with or without a total, and with a cell that rich reads."""
    rows = [*ROWS[:-3], [ROWS[0][0] if odd is None else odd, "1", "", "2", ""], *ROWS[-3:]]
    monkeypatch.setattr(layout, "MANY", 30)
    long = show(width, rows, total, **options)
    monkeypatch.setattr(layout, "MANY", 90)
    assert long == show(width, rows, total, **options)


def test_a_long_table_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich sees a handful of rows, however many there are."""
    seen: list[int] = []
    usual = Table.__rich_console__

    def watched(table: Any, *args: Any) -> Any:
        seen.append(len(table.rows))
        return usual(table, *args)

    monkeypatch.setattr(layout, "MANY", 30)
    monkeypatch.setattr(Table, "__rich_console__", watched)
    assert len(show(80, ROWS, TOTAL).splitlines()) == len(ROWS) + 3
    assert max(seen) <= 4
