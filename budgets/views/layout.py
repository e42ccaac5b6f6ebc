"""How tables and numbers look: plain on a console, pipes in Markdown. The first column and verdicts are words."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table

from featherpress.escaping import escape_cell, escape_markdown

#: From so many rows on, those that are plain text are laid out here, as rich would in fifty times as long.
MANY = 500
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
    table = _Table(box=None, pad_edge=False, **options)
    for place, name in enumerate(header):
        left = words or _holds_words(place, name)
        table.add_column(name, justify="left" if left else "right", no_wrap=not (left or wrap), overflow="fold")
    for row in rows:
        table.add_row(*row)
    if total:
        table.add_row()
        table.add_row(*total, style="bold")
    return table


class _Table(Table):
    """A table of which rich lays out one row with the widest cells, and all plain rows follow that."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = list(zip(*(column._cells for column in self.columns), strict=True))
        plain = next((place for place, row in enumerate(rows) if not _is_plain(row)), len(rows))
        # What stands apart below, a total, is rich's.
        plain = next((place for place, row in enumerate(self.rows[:plain]) if row.style), plain) - 1
        if plain < MANY:
            yield from super().__rich_console__(console, options)
            return
        widths = [max(1, *map(len, cells)) for cells in zip(*rows[:plain], strict=True)]
        lines = console.render_lines(self._short(widths, plain), options, pad=False)
        texts = ["".join(segment.text for segment in line) for line in lines]
        probe = next((place for place, text in enumerate(texts) if _spans(text, widths)), None)
        if probe is None:  # too wide for this console: cells are broken
            yield from super().__rich_console__(console, options)
            return
        spans, end = _spans(texts[probe], widths), len(texts[probe])
        below = (Segment(_lay_out(row, spans, self.columns).ljust(end) + "\n") for row in rows[:plain])
        newline = Segment.line()
        for line in lines[:probe]:
            yield from (*line, newline)
        yield from below
        for line in lines[probe + 1 :]:
            yield from (*line, newline)

    def _short(self, widths: Sequence[int], plain: int) -> Table:
        """Keep, of the plain rows, one as wide as the widest."""
        short = Table(box=None, pad_edge=False)
        vars(short).update(vars(self))
        short.rows = [self.rows[0], *self.rows[plain:]]
        short.columns = [column.copy() for column in self.columns]
        for column, width, full in zip(short.columns, widths, self.columns, strict=True):
            column._cells = [_PROBE * width, *full._cells[plain:]]
        return short


#: Stands for any letter in the widest row; no plain text has it.
_PROBE = "\u2592"


def _is_plain(row: Sequence[Any]) -> bool:
    """Return whether all cells are text as it is printed, without marks that rich reads."""
    return all(type(cell) is str and cell.isascii() and cell.isprintable() for cell in row) and not any(
        mark in cell for cell in row for mark in "[:\\"
    )


def _spans(text: str, widths: Sequence[int]) -> list[tuple[int, int]]:
    """Find where the columns of the widest row are, empty if they are not all there at once."""
    found = [match.span() for match in re.finditer(f"{_PROBE}+", text)]
    return found if [end - start for start, end in found] == list(widths) else []


def _lay_out(row: Sequence[str], spans: Sequence[tuple[int, int]], columns: Sequence[Any]) -> str:
    line = ""
    for cell, (start, end), column in zip(row, spans, columns, strict=True):
        line = line.ljust(start if column.justify == "left" else end - len(cell)) + cell
    return line


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
