"""Markdown: tables with aligned columns, and text that cannot break out of its cell."""

import re
from collections.abc import Sequence

__all__ = ["bold", "escape", "fence", "note", "table", "warning"]


def escape(text: str) -> str:
    """Return one line of text that Markdown shows as it is, in a table too."""
    flat = " ".join(text.split())
    # "< 16" stays readable in the source; "<b>" must not become a tag.
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", flat).replace("|", "\\|")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, align: str) -> str:
    """Return a Markdown table; `align` has one letter a column, `l` or `r`.

    Shapes: every row has as many cells as the header.
    """
    cells = [[escape(cell) for cell in row] for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = [":" + "-" * (w - 1) if side == "l" else "-" * (w - 1) + ":" for w, side in zip(widths, align, strict=True)]
    return "\n".join(_line(row, widths, align) for row in (cells[0], rule, *cells[1:]))


def _line(row: Sequence[str], widths: Sequence[int], align: str) -> str:
    columns = zip(row, widths, align, strict=True)
    return f"| {' | '.join(cell.ljust(w) if side == 'l' else cell.rjust(w) for cell, w, side in columns)} |"


def bold(row: Sequence[str]) -> list[str]:
    """Return a row in bold."""
    return [f"**{cell}**" for cell in row]


def fence(text: str, language: str) -> str:
    """Return a code block that its own content cannot close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    ticks = "`" * (longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def note(text: str) -> str:
    """Return a remark set apart, as GitHub draws it."""
    return f"> [!NOTE]\n> {escape(text)}"


def warning(text: str) -> str:
    """Return a warning set apart, as GitHub draws it."""
    return f"> [!WARNING]\n> {escape(text)}"
