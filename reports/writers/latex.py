"""LaTeX: every table of the report with booktabs' rules, to be included in a paper."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from featherpress.reports.blocks import Block, Table
from featherpress.reports.writers.inline import render_inline

HEAD = r"""% Tables of a featherpress report. In the preamble: \usepackage{booktabs,array}
% Tables with a star span both columns of a two-column page, which have to be 410pt wide together, as in article."""
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
# Points: a column and both, as the narrowest of the usual two-column pages have them.
COLUMN, PAGE = 200.0, 410.0
# Lines that a broken cell may have, the fewer the better, and letters of a word that is not broken.
LINES, WORD = (4, 8, 99), 12
# How much wider bold letters are.
BOLD = 1.15
# Where a line may end inside of a word.
_INSIDE = re.compile(r"(?<=[._:/])(?=[A-Za-z0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """A size of letters with the space at each side of a column that goes with it.

    Units: points.
    """

    name: str
    points: float
    gap: int

    @property
    def command(self) -> str:
        """What sets both."""
        return rf"\{self.name}\setlength{{\tabcolsep}}{{{self.gap}pt}}"

    @property
    def width(self) -> float:
        """How wide a letter is, by and large."""
        return 0.55 * self.points

    def room(self, line: float, columns: int) -> float:
        """Return how many letters fit on a line of so many columns."""
        return (line - 2 * self.gap * (columns - 1)) / self.width


# The larger first.
SIZES = (Letters(name="footnotesize", points=8.0, gap=4), Letters(name="scriptsize", points=7.0, gap=2))


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
    """Return text that LaTeX prints as it is; a long name may break where a reader would break it."""
    pieces = re.split(r"(?<=[A-Za-z0-9][.:/-])(?=[A-Za-z])", text)
    special = re.compile("|".join(map(re.escape, SPECIAL)))
    return r"\allowbreak{}".join(special.sub(lambda found: SPECIAL[found[0]], piece) for piece in pieces)


def _inline(text: str) -> str:
    flat = " ".join(text.split())
    return render_inline(
        flat, plain=escape, bold=r"\textbf{{{}}}".format, code=lambda raw: rf"\texttt{{{escape(raw)}}}"
    )


def _table(table: Table, *, label: str) -> str:
    size, types, star = _layout(table)
    lines = [_row(row) for row in table.rows]
    if table.pinned == "first":
        lines.insert(1, r"\midrule")
    elif table.pinned == "last":
        lines.insert(-1, r"\midrule")
    return "\n".join(
        [
            *([f"% {table.origin.replace('`', '')}"] if table.origin else []),
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


def _layout(table: Table) -> tuple[str, str, str]:
    """Return the size of the letters, the columns' types, and a star where both columns of the page are needed.

    Where the cells are too wide together, the longest texts are broken into lines, as few of them as will do; where
    they would have many lines, the letters are a step smaller.
    """
    columns = [[*_stack(head), *cells] for head, *cells in zip(table.header, *table.rows, strict=True)]
    widths = [max(_visible(cell) * (BOLD if cell.startswith("**") else 1.0) for cell in column) for column in columns]
    letters = SIZES[0]
    if letters.room(PAGE, len(widths)) >= sum(widths):
        return letters.command, table.align, "" if letters.room(COLUMN, len(widths)) >= sum(widths) else "*"
    texts = sorted((i for i, side in enumerate(table.align) if side == "l"), key=lambda i: -widths[i])
    words = [_longest_word(column) for column in columns]
    for lines, letters, broken in _attempts(texts):
        least = [max(words[i], width / lines) if i in broken else width for i, width in enumerate(widths)]
        spare = letters.room(PAGE, len(widths)) - sum(least)
        if spare >= 0:
            break
    part = max(0.0, spare) / max(1.0, sum(widths[i] for i in broken))
    shares = {i: (least[i] + part * widths[i]) * letters.width / PAGE for i in broken}
    types = [_paragraph(shares[i]) if i in shares else side for i, side in enumerate(table.align)]
    return letters.command, "".join(types), "*"


def _attempts(texts: Sequence[int]) -> Iterator[tuple[int, Letters, Sequence[int]]]:
    """Give ways to make a table narrower, the best first: the most lines of a cell, the letters, what is broken."""
    for lines in LINES:
        for letters in SIZES:
            for count in range(len(texts) + 1):
                yield lines, letters, texts[:count]


def _paragraph(share: float) -> str:
    """Return a column of broken lines; the space of no width lets the first word of a cell be hyphenated too."""
    return rf">{{\raggedright\arraybackslash\hspace{{0pt}}}}p{{{share:.3f}\linewidth}}"


def _visible(text: str) -> int:
    """Return how many letters of a text are printed."""
    return len(text.replace("*", "").replace("`", "").strip())


def _longest_word(cells: Sequence[str]) -> int:
    words = (piece for cell in cells for word in cell.split() for piece in re.split(r"(?<=-)|(?<=_)", word))
    return min(WORD, max(map(_visible, words), default=0))


def _stack(text: str) -> list[str]:
    """Return a heading in the fewest lines of one to three, a long one in lines that are about equally long."""
    if _visible(text) <= 10:
        return [text]
    pieces = [piece for word in text.split() for piece in _pieces(word)]
    most = 2 if _visible(text) <= 32 else 3
    limits = range(max(map(_visible, pieces)), _visible(text) + 1)
    return next(lines for limit in limits if len(lines := _fill(pieces, limit)) <= most)


def _pieces(word: str) -> list[str]:
    """Return a word with the space behind it, code in pieces at which a line may end."""
    if not word.startswith("`"):
        return [f"{word} "]
    *most, last = (f"`{piece}`" for piece in _INSIDE.split(word.strip("`")))
    return [*most, f"{last} "]


def _fill(pieces: Sequence[str], limit: int) -> list[str]:
    lines: list[str] = []
    for piece in pieces:
        joined = f"{lines[-1]}{piece}" if lines else ""
        if lines and _visible(joined) <= limit:
            lines[-1] = joined
        else:
            lines.append(piece)
    return [line.strip().replace("``", "") for line in lines]


def _head(text: str, side: str) -> str:
    lines = [_inline(line) for line in _stack(text)]
    stacked = r" \\ ".join(lines)
    return stacked if len(lines) == 1 else rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{stacked}\end{{tabular}}"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(_inline, cells)) + r" \\"
