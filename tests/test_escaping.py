"""Names drawn to do harm stand in every writer's text as they are: they steer nothing, and break out of nothing."""

import csv
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featherpress.budgets.views.junit import Case, render_suite
from featherpress.budgets.views.layout import console_table, csv_table, markdown_table
from featherpress.commands.printing import complain, echo, plain_console
from featherpress.compress.experiments.ablation import Row, ablation_markdown
from featherpress.escaping import escape_cell, escape_html, escape_latex, escape_markdown, shorten, visible
from featherpress.reports.blocks import Block, Code, Heading, Paragraph, Remark, Table
from featherpress.reports.writers.latex import to_latex
from featherpress.reports.writers.markdown import to_markdown
from featherpress.reports.writers.page import to_page

HARMFUL = [
    *("\x1b[31m", "\x07", "\x00", "\x7f", "\x9b", "\r", "\n", "\n\n", "\u2028", "\u202e", "\ufeff", "\ud800", "\uffff"),
    *("<script>alert(1)</script>", "<img src=x onerror=y>", "</td>", "</code>", "&lt;", "&#60;", "]]>", "<!--"),
    *("\\input{/etc/passwd}", "\\", "%", "{", "}", "$", "_", "^^5c", "~"),
    *("=cmd|' /C calc'!A0", "+1+1", "-2", "@SUM(A1)", "\t=1", "'", '"', ",", ";"),
    *("|", "\\|", "`", "```", "**", "[x](javascript:y)", "![x](http://y)", "# ", "- ", "> ", "::error::x", "---"),
    *("x", " ", "3.5", "\N{LATIN SMALL LETTER O WITH DIAERESIS}", "\N{CAMERA}"),
]
names = st.lists(st.sampled_from(HARMFUL), min_size=1, max_size=5).map("".join)


def blocks(name: str) -> list[Block]:
    row = [name, f"`{name}`", f"**{name}**"]
    return [
        Heading(text=f"Of {name}", level=2),
        Paragraph(text=f"It is `{name}` or {name}."),
        Table(name="t", title=f"T {name}", header=row, rows=[row, row], align="llr", records=[f"{name}.json"]),
        Remark(text=f"See {name}.", kind="note"),
        Code(text=f"run {name}\nagain", language="sh", summary=f"How {name}"),
    ]


def require_plain(text: str) -> None:
    """Nothing in a text steers what shows it."""
    assert visible(text, lines=True) == text
    text.encode()


class Tags(HTMLParser):
    """Lists the tags of a page, and their attributes' names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"wbr", "code", "strong"}:
            self.found.append((tag, [name for name, _ in attrs]))


@given(names)
@settings(max_examples=150)
@example("\n\\input{x}")
def test_reports(name: str) -> None:
    """Markdown keeps its lines and cells, HTML its tags, LaTeX its commands and comments."""
    harmless = blocks("x")
    markdown, page, latex = to_markdown(blocks(name)), to_page(blocks(name), {}), to_latex(blocks(name))
    for text in (markdown, page, latex):
        require_plain(text)
    tables = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in tables] == [4] * 4
    outside = re.sub(r"(?ms)^(`{3,})sh$.*?^\1$", "", markdown)
    assert {*re.findall(r"<[A-Za-z/!?][^>]*>", outside)} == {"<details>", "<summary>", "</summary>", "</details>"}
    assert Tags(page).found == Tags(to_page(harmless, {})).found
    assert latex.count("\n") == to_latex(harmless).count("\n")
    typeset = [line for line in latex.splitlines() if not line.startswith("%")]
    assert not re.search(r"\\input(?![a-z])|(?<!\\)\^\^", "\n".join(typeset))
    assert latex.count("\n%") == to_latex(harmless).count("\n%")


@given(names)
@example("\n\n# x")
@example("](javascript:y) [")
@example("a-1")
def test_contents(name: str) -> None:
    """A list of sections is one line of links into the page, whatever they are called."""
    headings = [Heading(text=f"Of {name}", level=2)] * 4
    markdown, page = to_markdown(headings), to_page(headings, {})
    lines = markdown.splitlines()
    assert len(lines) == 9
    assert len(re.findall(r"\]\(#[^)]*\)", lines[0])) == lines[0].count("](") == 4
    assert not re.search(r"<[A-Za-z/!?]", lines[0])
    assert Tags(page).found == Tags(to_page([Heading(text="Of x", level=2)] * 4, {})).found
    for text in (markdown, page):
        require_plain(text)


@given(names)
@settings(max_examples=150)
def test_tables_of_costs(name: str) -> None:
    """Cells stay cells in Markdown and CSV; no spreadsheet finds a formula; XML is well formed; a terminal is calm."""
    lines = [
        *markdown_table(["a", name], [[name, name]]),
        *ablation_markdown([Row(losses=name, score=1, std=None)], metric=name).splitlines(),
    ]
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines] == [3] * 3 + [8] * 3
    table = csv_table(["a", name], [[name, 5], [-5, "-1.5"]])
    cells = [*csv.reader(io.StringIO(table))]
    assert [len(row) for row in cells] == [2, 2, 2]
    assert not re.match(r"[=+\-@](?![\d.,eE%+-]+$)", cells[1][0])
    assert cells[2] == ["-5", "-1.5"]
    case = Case(name=name, outcome="failure", message=name, text=name, said=[name])
    suite = ElementTree.fromstring(render_suite(name, [case]))  # noqa: S314 - our own
    assert [element.tag for element in suite.iter()] == ["testsuite", "testcase", "failure", "system-out"]
    console = plain_console()
    console.file = io.StringIO()
    console.print(console_table(["a", "b"], [[name, name]]), name)
    for text in (*lines, table, console.file.getvalue()):
        require_plain(text)


@given(names)
def test_what_is_said(name: str) -> None:
    """Sentences and errors are one line, or the lines that they have, whatever they name."""
    with pytest.MonkeyPatch.context() as patch:
        for stream in ("stdout", "stderr"):
            patch.setattr(f"sys.{stream}", io.StringIO())
        import sys

        echo(f"in {name}\nend")
        complain(f"no {name}")
        said, complained = sys.stdout.getvalue(), sys.stderr.getvalue()  # type: ignore[attr-defined]
    require_plain(said)
    require_plain(complained)
    assert complained.count("\n") == 1


def test_by_hand() -> None:
    """Each format's own dangers, written as they are to be read."""
    assert visible("a\x1b[0m\u202eb\ud800\n") == "a\\x1b[0m\\u202eb\\ud800 "
    assert (
        visible("\N{WOMAN}\u200d\N{PERSONAL COMPUTER} gr\N{LATIN SMALL LETTER O WITH DIAERESIS}")
        == "\N{WOMAN}\u200d\N{PERSONAL COMPUTER} gr\N{LATIN SMALL LETTER O WITH DIAERESIS}"
    )
    assert escape_markdown("<b> 1 < 2 & a|b &amp; [x](y) [0]") == "&lt;b> 1 < 2 & a\\|b &amp;amp; \\[x](y) [0]"
    assert escape_html('<b> "a" & b\nc') == "&lt;b&gt; &quot;a&quot; &amp; b c"
    assert escape_html("a\nb\x07", lines=True) == "a\nb\\x07"
    assert escape_latex("100% a_b\n\\x") == r"100\% a\_\allowbreak{}b \textbackslash{}x"
    assert [escape_cell(cell) for cell in ("=1+1", "-1", "-a", "+4.5%", 3, "a=b")] == [
        "'=1+1",
        "-1",
        "'-a",
        "+4.5%",
        3,
        "a=b",
    ]


def test_long_values_are_shortened() -> None:
    """A value of thousands of characters is quoted by its beginning; paths and sentences stay whole."""
    sentence = shorten(f"a/b.toml: expected a number, got {'x' * 5000!r}; see {'word ' * 50}")
    assert len(sentence) < 500
    assert sentence.startswith("a/b.toml: expected a number, got 'xxx")
    assert shorten(f"no {'a/' * 100}") == f"no {'a/' * 100}"


def test_what_is_quoted_whole_is_shortened() -> None:
    """A value of any length is cut; an apostrophe inside a word, and what lies between two short values, is not."""
    plain = "COCO's AP needs " + "accelerate, " * 20 + "install 'it[all]'"
    between = "'a' and " + "so on " * 30 + "'b'"
    assert [shorten(each) for each in (plain, between)] == [plain, between]
    for quote in "'\"":
        assert shorten(f"no {quote}{'x' * 999}{quote} here") == f"no {quote}{'x' * 119}...{quote} here"
