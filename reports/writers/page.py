"""One HTML page that needs nothing else: its style, its few lines of script and its pictures are inside."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files

from featherpress.escaping import escape_html
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
    render_inline,
)
from featherpress.reports.writers import MARK

# Nothing may be loaded, from wherever the page is opened.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
ONE_LINE = 18
"""Letters of a name that fits into the first column of a table on a telephone."""
_NUMBER = re.compile(r"[+\N{MINUS SIGN}-]?\d[\d,]*(?:\.\d+)?")


def to_page(blocks: Sequence[Block], pictures: Mapping[str, bytes]) -> str:
    """Return the report as one page; `pictures` has the PNG of every figure by its name.

    Errors: `KeyError` when a figure has no picture.
    """
    data = files("featherpress.reports") / "data"
    style, script = ((data / name).read_text(encoding="utf-8").strip() for name in ("page.css", "page.js"))
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Report")
    head = [
        "<!doctype html>",
        f"<!-- Page {MARK} -->",
        '<html lang="en">',
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape_html(title.replace('`', ''))}</title>",
        f"<style>\n{style}\n</style>",
        "<main>",
    ]
    sections, body = contents(blocks), []
    anchors = iter(sections)
    for block in blocks:
        text = _render(block, pictures)
        if isinstance(block, Heading) and block.level == 2 and (known := next(anchors, None)):
            if known == sections[0]:
                body.append(_contents(sections))
            text = text.replace("<h2>", f'<h2 id="{known[0]}">', 1)
        body.append(text)
    return "\n".join([*head, *body, "</main>", f"<script>\n{script}\n</script>", "</html>"]) + "\n"


def _contents(sections: Sequence[tuple[str, str]]) -> str:
    links = (f'<li><a href="#{anchor}">{_inline(title)}</a></li>' for anchor, title in sections)
    return f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>'


def sort_value(cell: str) -> str:
    """Return the number a cell is sorted by, empty when it has none.

    A cell such as "0.596 ± 0.003" or "1,048,728 B (1.05 MB)" is sorted by its first number.
    """
    found = _NUMBER.search(cell)
    return found[0].replace(",", "").replace("\N{MINUS SIGN}", "-").lstrip("+") if found else ""


def _inline(text: str) -> str:
    return render_inline(
        " ".join(text.split()),
        plain=escape_html,
        bold="<strong>{}</strong>".format,
        code=_code,
    )


def _code(raw: str) -> str:
    """Return a name that stays in one line, or breaks where a reader would break it if it is long."""
    text = escape_html(raw)
    return f"<code>{text if len(raw) <= ONE_LINE else text.replace('_', '_<wbr>')}</code>"


def _render(block: Block, pictures: Mapping[str, bytes]) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
        case Paragraph():
            return f"<p>{_inline(block.text)}</p>"
        case Table():
            return "\n".join(_table(block))
        case Picture():
            return _picture(block, pictures[block.file])
        case Remark():
            name = block.kind.capitalize()
            return f'<aside class="{block.kind}"><p><strong>{name}.</strong> {_inline(block.text)}</p></aside>'
        case Code():
            code = f'<pre tabindex="0"><code>{escape_html(block.text.rstrip(), lines=True)}</code></pre>'
            summary = f"<summary>{_inline(block.summary)}</summary>"
            return f"<details>\n{summary}\n{code}\n</details>" if block.summary else code


def _picture(picture: Picture, png: bytes) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    # A little larger than the 96 pixels of an inch on paper, as screens are farther away.
    width = round(120 * picture.width)
    caption = _inline(f"{picture.caption} {origin(picture.records)}")
    image = f'<img src="{source}" alt="{escape_html(picture.alt)}" width="{width}">'
    return (
        f'<figure style="width: {width + 20}px">\n{image}\n'
        f"<figcaption><strong>Figure {picture.number}.</strong> {caption}</figcaption>\n</figure>"
    )


def _table(table: Table) -> Iterator[str]:
    """Give the lines of a table; pinned rows stand in a body of their own."""
    title = escape_html(table.title.replace("`", ""))
    # Outside what scrolls, so that it stays in sight on a narrow screen.
    yield f'<p class="caption">{_inline(f"{table.title}. {origin(table.records)}")}</p>'
    yield f'<div class="scroll" role="region" aria-label="{title}" tabindex="0">'
    yield f'<table aria-label="{title}">\n<thead>'
    heads = (
        f'<th scope="col" class="{side}" aria-sort="none"><button type="button">{_inline(text)}</button></th>'
        for text, side in zip(table.header, table.align, strict=True)
    )
    yield f"<tr>{''.join(heads)}</tr>\n</thead>"
    kinds = _kinds(table)
    rows = [_row(row, kinds) for row in table.rows]
    bodies = {"first": (rows[:1], rows[1:]), "last": ([], rows[:-1], rows[-1:]), "": ([], rows)}[table.pinned]
    for place, body in enumerate(bodies):
        if body:
            yield "\n".join(["<tbody data-sorted>" if place == 1 else "<tbody>", *body, "</tbody>"])
    yield "</table>\n</div>"


def _kinds(table: Table) -> list[str]:
    """Return the classes of the columns: numbers, words, and texts, which get the room to be read."""
    return [
        "l long" if side == "l" and any(len(row[place]) > 40 for row in table.rows) else side
        for place, side in enumerate(table.align)
    ]


def _row(row: Sequence[str], kinds: Sequence[str]) -> str:
    cells = []
    for place, (cell, kind) in enumerate(zip(row, kinds, strict=True)):
        value = f' data-value="{sort_value(cell)}"' if kind == "r" else ""
        tag, name = ('th scope="row"', "th") if place == 0 else ("td", "td")
        cells.append(f'<{tag} class="{kind}"{value}>{_inline(cell)}</{name}>')
    return f"<tr>{''.join(cells)}</tr>"
