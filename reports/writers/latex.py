"""LaTeX: every table of the report with booktabs' rules, to be included in a paper."""

import re
from collections.abc import Sequence

from featherpress.reports.blocks import Block, Table
from featherpress.reports.writers.inline import render_inline

__all__ = ["escape", "to_latex"]

HEAD = r"""% Tables of a featherpress report. In the preamble: \usepackage{booktabs,array}
% Tables with a star span both columns of a two-column page."""
SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_\allowbreak{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{EM DASH}": "---",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
}
# Characters that fit on a line: beyond, a table spans the page; and those from which on a cell is broken into lines.
COLUMN_WIDTH, LONG_CELL = 52, 36


def to_latex(blocks: Sequence[Block]) -> str:
    """Return all tables as floats, in the report's order; each has its label, a repeated one a number."""
    tables = [block for block in blocks if isinstance(block, Table)]
    seen: dict[str, int] = {}
    parts = [HEAD]
    for table in tables:
        seen[table.name] = seen.get(table.name, 0) + 1
        number = f"-{seen[table.name]}" if seen[table.name] > 1 else ""
        parts.append(_table(table, label=f"tab:{table.name}{number}"))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Return text that LaTeX prints as it is, in one line."""
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda found: SPECIAL[found[0]], " ".join(text.split(" ")))


def _inline(text: str) -> str:
    flat = " ".join(text.split())
    return render_inline(
        flat, plain=escape, bold=r"\textbf{{{}}}".format, code=lambda raw: rf"\texttt{{{escape(raw)}}}"
    )


def _table(table: Table, *, label: str) -> str:
    columns = zip(map(_halves, table.header), *table.rows, strict=True)
    # A cell of code alone is never broken, and is marked by two characters that are not printed.
    widths = [max(*map(len, head), *map(len, cells), 0) for head, *cells in columns]
    size, types = _layout(table, widths)
    star = "*" if sum(widths) > COLUMN_WIDTH else ""
    lines = [_row(row) for row in table.rows]
    if table.pinned == "first":
        lines.insert(1, r"\midrule")
    elif table.pinned == "last":
        lines.insert(-1, r"\midrule")
    return "\n".join(
        [
            rf"\begin{{table{star}}}",
            rf"\centering{size}",
            rf"\caption{{{_inline(table.title)}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{@{{}}{types}@{{}}}}",
            r"\toprule",
            " & ".join(map(_head, table.header, table.align)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\end{{table{star}}}",
        ]
    )


def _layout(table: Table, widths: Sequence[int]) -> tuple[str, str]:
    """Return the size of the letters and the columns' types: long texts are broken into lines, in what is left.

    Where the short columns leave little, the letters are a step smaller.
    """
    cells = zip(*table.rows, strict=True)
    long = [
        side == "l" and width > LONG_CELL and not all(cell.strip("*").startswith("`") for cell in column)
        for width, side, column in zip(widths, table.align, cells, strict=True)
    ]
    # What footnotesize takes of a line as wide as both columns: a character 0.0085 of it, a column's gap 0.016.
    short = sum(0.0085 * width + 0.016 for width, is_long in zip(widths, long, strict=True) if not is_long)
    size, gap = (r"\footnotesize", 4) if short < 0.75 + 0.25 * (not any(long)) else (r"\scriptsize", 2)
    left = 0.98 - short * (1 if gap == 4 else 0.8)
    broken = rf">{{\raggedright\arraybackslash}}p{{{max(0.13, left / max(1, sum(long)) - 0.016):.2f}\linewidth}}"
    types = "".join(broken if is_long else side for side, is_long in zip(table.align, long, strict=True))
    return rf"{size}\setlength{{\tabcolsep}}{{{gap}pt}}", types


def _halves(text: str) -> list[str]:
    """Return a heading in one line or, where it is long, in two that are about equally long."""
    words = text.split()
    cuts = [(" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words))]
    return [text] if len(text) <= 10 or not cuts else list(min(cuts, key=lambda cut: max(map(len, cut))))


def _head(text: str, side: str) -> str:
    lines = [_inline(line) for line in _halves(text)]
    stacked = r" \\ ".join(lines)
    return stacked if len(lines) == 1 else rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{stacked}\end{{tabular}}"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(_inline, cells)) + r" \\"
