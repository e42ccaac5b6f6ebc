"""How tables look: plain columns on a console, pipes in Markdown. The first column and verdicts are words."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table


def console_table(header: Sequence[str], *, wrap: bool = False, **options: Any) -> Table:
    """Make a table without rows or lines: words to the left, numbers to the right, broken only with `wrap`."""
    table = Table(box=None, pad_edge=False, **options)
    for place, name in enumerate(header):
        words = _holds_words(place, name)
        table.add_column(name, justify="left" if words else "right", no_wrap=not (words or wrap), overflow="fold")
    return table


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Make the lines of a Markdown table."""
    marks = ["---" if _holds_words(place, name) else "---:" for place, name in enumerate(header)]
    return ["| " + " | ".join(map(escape, row)) + " |" for row in (header, marks, *rows)]


def escape(text: str) -> str:
    """Keep a text from breaking a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def percent(part: int, whole: int, *, nothing: str = "0.0") -> str:
    """Write a share with one decimal; `nothing` is the share of a whole that is 0."""
    return f"{100 * part / whole:.1f}" if whole else nothing


def _holds_words(place: int, name: str) -> bool:
    return place == 0 or name == "verdict"
