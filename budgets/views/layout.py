"""How tables and numbers look: plain on a console, pipes in Markdown. The first column and verdicts are words."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from featherpress.escaping import escape_cell, escape_markdown

UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def console_table(
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    total: Sequence[Any] = (),
    wrap: bool = False,
    words: bool = False,
    **options: Any,
) -> Table:
    """Make a table without lines: words to the left, numbers to the right, broken only with `wrap`; a total apart.

    All columns are words with `words`.
    """
    table = Table(box=None, pad_edge=False, **options)
    for place, name in enumerate(header):
        left = words or _holds_words(place, name)
        table.add_column(name, justify="left" if left else "right", no_wrap=not (left or wrap), overflow="fold")
    for row in rows:
        table.add_row(*row)
    if total:
        table.add_row()
        table.add_row(*total, style="bold")
    return table


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Make the lines of a Markdown table."""
    marks = ["---" if _holds_words(place, name) else "---:" for place, name in enumerate(header)]
    return ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in (header, marks, *rows)]


def csv_table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Make comma-separated values."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([map(escape_cell, row) for row in (header, *rows)])
    return stream.getvalue()


def percent(part: int, whole: int, *, nothing: str = "0.0") -> str:
    """Write a share with one decimal; `nothing` is the share of a whole that is 0."""
    return f"{100 * part / whole:.1f}" if whole else nothing


def format_macs(amount: int) -> str:
    """Shorten to four digits and a unit: 927736256 is "927.7 M"; below 10,000 nothing is lost."""
    if amount < 0:
        return f"-{format_macs(-amount)}"
    if amount < 10_000:
        return f"{amount:,}"
    size, unit = next(each for each in UNITS if amount >= each[0])
    return f"{amount / size:.{2 if amount < 100 * size else 1}f} {unit}"


def _holds_words(place: int, name: str) -> bool:
    return place == 0 or name in {"verdict", "types", "in", "out"}
