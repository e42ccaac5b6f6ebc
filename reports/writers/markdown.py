"""Markdown that GitHub renders: tables with aligned columns, and text that cannot break out of its cell."""

import re
from collections.abc import Sequence

from featherpress.escaping import escape_html, escape_markdown, visible
from featherpress.reports.blocks import (
    Block,
    Code,
    Heading,
    Paragraph,
    Picture,
    Remark,
    Table,
    contents,
    origin,
    typeset,
)

_AS_LINK = str.maketrans("[]", "()", "`")
"""A link's text is in brackets, which no other bracket may close."""


def to_markdown(blocks: Sequence[Block]) -> str:
    """Return the whole report as one Markdown text."""
    sections = contents(blocks)
    texts = [_render(block) for block in blocks]
    if sections:
        first = next(place for place, each in enumerate(blocks) if isinstance(each, Heading) and each.level == 2)
        links = (f"[{escape(title.translate(_AS_LINK))}](#{anchor})" for anchor, title in sections)
        texts.insert(first, f"Contents: {', '.join(links)}.")
    return "\n\n".join(texts) + "\n"


def escape(text: str) -> str:
    """Return a text of blocks as Markdown."""
    return escape_markdown(typeset(text))


def _render(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {escape(block.text)}"
        case Paragraph():
            return escape(block.text)
        case Table():
            title = f"*{escape(f'{block.title}. {origin(block.records)}'.strip())}*"
            return f"{title}\n\n{render_table(block.header, block.rows, align=block.align)}"
        case Picture():
            return _picture(block)
        case Remark():
            return f"> [!{block.kind.upper()}]\n> {escape(block.text)}"
        case Code():
            code = fence(block.text, block.language)
            summary = f"<summary>{escape(block.summary)}</summary>"
            return f"<details>\n\n{summary}\n\n{code}\n\n</details>" if block.summary else code


def _picture(picture: Picture) -> str:
    # Widths in proportion to the figures' inches, so that their letters come out alike.
    width = round(120 * picture.width)
    tag = f'<img src="figures/{picture.file}.png" alt="{escape_html(picture.alt)}" width="{width}">'
    return f"{tag}\n\n*Figure {picture.number}. {escape(f'{picture.caption} {origin(picture.records)}'.strip())}*"


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, align: str) -> str:
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


def fence(text: str, language: str) -> str:
    """Return a code block that its own content cannot close."""
    text = visible(text, lines=True)
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    ticks = "`" * (longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"
