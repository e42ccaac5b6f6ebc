"""LaTeX: every table of the report with booktabs' rules, to be included in a paper."""

from collections.abc import Sequence

import pandas as pd

from featherpress.escaping import escape_latex, visible
from featherpress.reports.blocks import Block, Table, origin, render_inline
from featherpress.reports.writers import MARK

HEAD = rf"% Tables {MARK}. In the preamble: \usepackage{{array,booktabs,longtable}}"
# A column of texts with more letters than these is broken into lines.
LONG = 30


def to_latex(blocks: Sequence[Block]) -> str:
    """Return all tables in the report's order; each has its label, a repeated one a number."""
    tables = [block for block in blocks if isinstance(block, Table)]
    seen: dict[str, int] = {}
    parts = [HEAD]
    for table in tables:
        seen[table.name] = seen.get(table.name, 0) + 1
        number = f"-{seen[table.name]}" if seen[table.name] > 1 else ""
        parts.append(_table(table, label=f"tab:{table.name}{number}"))
    return "\n\n".join(parts) + "\n"


def _inline(text: str) -> str:
    flat = " ".join(text.split())
    return render_inline(
        flat, plain=escape_latex, bold=r"\textbf{{{}}}".format, code=lambda raw: rf"\texttt{{{escape_latex(raw)}}}"
    )


def _table(table: Table, *, label: str) -> str:
    frame = pd.DataFrame([list(map(_inline, row)) for row in table.rows], columns=list(map(_inline, table.header)))
    text = frame.style.hide(axis="index").to_latex(
        environment="longtable",
        hrules=True,
        caption=_inline(table.title),
        label=label,
        column_format="".join(_column(table, place) for place in range(len(table.align))),
    )
    comment = f"% {visible(origin(table.records)).replace('`', '')}\n" if table.records else ""
    return comment + text.rstrip()


def _column(table: Table, place: int) -> str:
    """Return a column's type; one of long texts is a paragraph, which shares the page's width with the others."""
    side, longest = table.align[place], max((len(row[place]) for row in table.rows), default=0)
    if side == "r" or longest <= LONG:
        return side
    return rf">{{\raggedright\arraybackslash}}p{{{0.9 / len(table.align):.2f}\linewidth}}"
