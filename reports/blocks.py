"""What a report is made of, before it is Markdown, HTML or LaTeX.

All texts may hold `code` and **bold**, as in Markdown, and nothing else.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from featherpress.reports.formats import MINUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A section's title; `level` 1 is the report's own."""

    text: str
    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """A running text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under a heading; `align` has one letter a column, `l` or `r`.

    `name` and `title` identify it where tables float; `records` are the files its numbers stand in; the `pinned` rows
    are sums or the like, which stay where they are when the others are sorted.

    Shapes: every row has as many cells as the header.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str
    records: Sequence[str] = ()
    pinned: Literal["", "first", "last"] = ""

    def __post_init__(self) -> None:
        """Refuse uneven rows, which are our own mistake."""
        if any(len(cells) != len(self.align) for cells in (self.header, *self.rows)):
            raise ValueError(f"table {self.name}: a row is shorter or longer than its {len(self.align)} columns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A numbered figure; `file` is its name without a suffix, in the report's `figures/`.

    `records` are the files it is drawn from.

    Units: `width` in inches on paper.
    """

    file: str
    alt: str
    caption: str
    number: int
    width: float
    records: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something set apart: a note, or a warning."""

    text: str
    kind: Literal["note", "warning"] = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Lines to be copied as they are; with a `summary` they are hidden under it until asked for."""

    text: str
    language: str
    summary: str = ""


_FEW = 4

Block: TypeAlias = Heading | Paragraph | Table | Picture | Remark | Code


def contents(blocks: Sequence[Block]) -> list[tuple[str, str]]:
    """Return the sections of a report as (anchor, title), each anchor as GitHub derives it from the title; else none.

    Few sections need no list.
    """
    titles = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    found: list[tuple[str, str]] = []
    taken: dict[str, int] = {}
    for title in titles:
        anchor = plain = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        while anchor in taken:
            taken[plain] += 1
            anchor = f"{plain}-{taken[plain]}"
        taken[anchor] = 0
        found.append((anchor, title))
    return found if len(found) >= _FEW else []


def origin(records: Sequence[str]) -> str:
    """Return a sentence that names the files some numbers stand in; empty for none."""
    names = [f"`{record}`" for record in dict.fromkeys(records)]
    if len(names) > 1:
        names[-2:] = [f"{names[-2]} and {names[-1]}"]
    return f"From {', '.join(names)}." if names else ""


def bold(row: Sequence[str]) -> list[str]:
    """Return a row in bold."""
    return [f"**{cell}**" for cell in row]


_SIGNS = re.compile(r"(?P<code>`[^`]+`)|(?P<minus>(?<![\w.)\]])-(?=\.?\d))|(?P<percent>(?<=\d)%)|\+-")


def typeset(text: str) -> str:
    """Return a text with the signs of reports for those of records and terminals: a minus, a space before %, and ±."""

    def sign(found: "re.Match[str]") -> str:
        return found["code"] or (MINUS if found["minus"] else " %" if found["percent"] else "\N{PLUS-MINUS SIGN}")

    return _SIGNS.sub(sign, text)


_MARK = re.compile(r"\*\*(?P<bold>.+?)\*\*|`(?P<code>[^`]+)`")


def render_inline(
    text: str, *, plain: Callable[[str], str], bold: Callable[[str], str], code: Callable[[str], str]
) -> str:
    """Return a text with each part rendered: `bold` gets what is already rendered, the others raw text."""
    text, done, parts = typeset(text), 0, []
    for found in _MARK.finditer(text):
        parts.append(plain(text[done : found.start()]))
        if found["bold"] is not None:
            parts.append(bold(render_inline(found["bold"], plain=plain, bold=bold, code=code)))
        else:
            parts.append(code(found["code"]))
        done = found.end()
    return "".join([*parts, plain(text[done:])])
