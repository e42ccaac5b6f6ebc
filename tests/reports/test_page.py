"""The HTML page: what it holds, and how it looks and sorts in a real browser."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from featherpress.reports import write_report
from featherpress.reports.writers.page import sort_value


def load_browser() -> ModuleType:
    """Import the driver that lies beside this file."""
    spec = util.spec_from_file_location("featherpress_test_browser", Path(__file__).with_name("browser.py"))
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


driver = load_browser()
in_browser = pytest.mark.skipif(driver.find_browser() is None, reason="needs Debian's chromium")


@pytest.fixture(scope="module")
def page(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the complete run."""
    out = tmp_path_factory.mktemp("page")
    return write_report([written / "v1-to-v2"], out, page=True).with_name("report.html")


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Any]:
    """A browser that shows the page."""
    with driver.open_browser(driver.find_browser()) as opened:
        opened.size(1200)
        opened.open(page)
        yield opened


class Balance(HTMLParser):
    """Checks that every tag that opens is closed, and keeps what is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action"}]
        self.loaded += [value for value in wanted if not value.startswith("#")]  # which is a place in the page
        if tag not in {"meta", "img", "html", "wbr"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "html":
            assert self.open.pop() == tag


def test_page_is_whole_and_alone(page: Path) -> None:
    """Every tag is closed, every picture is inside, and nothing else is asked for."""
    text = page.read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert len(parser.loaded) == 8
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in parser.loaded)
    links = re.findall(r'<a href="#([^"]+)"', text)
    assert len(links) > 4
    assert links == re.findall(r'<h2 id="([^"]+)"', text)
    assert "<caption" not in text
    assert not re.search(r"@import|url\(|https?:", re.sub(r"data:[^\"]*", "", text))


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("485,599", "485599"),
        ("**\N{MINUS SIGN}3,401**", "-3401"),
        ("0.596 ± 0.003", "0.596"),
        ("1,048,728 B (1.05 MB)", "1048728"),
        ("+0.031", "0.031"),
        ("\N{MINUS SIGN}58.7 %", "-58.7"),
        ("—", ""),
        ("equal", ""),
    ],
)
def test_cells_are_sorted_by_their_first_number(cell: str, value: str) -> None:
    """Separators, signs, deviations and units do not matter; what has no number has no value."""
    assert sort_value(cell) == value


@in_browser
@pytest.mark.parametrize("width", [400, 1200])
def test_page_never_scrolls_sideways(browser: Any, width: int) -> None:
    """At a telephone's width and at a desk's the page fits; wide tables scroll in their own frames."""
    browser.size(width)
    root = "document.documentElement"
    assert browser.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0
    wide = "[...document.querySelectorAll('figure, p, h1, h2, aside, pre, .scroll')]"
    outside = f"{wide}.filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML)"
    assert browser.evaluate(outside) == []


@in_browser
def test_a_telephone_shows_names_whole_and_keeps_them_in_sight(browser: Any) -> None:
    """At 390 pixels the names of models are not broken, captions do not scroll, and the first column stays."""
    browser.size(390)
    names = "[...document.querySelectorAll('th code')].filter((e) => e.textContent.length <= 18)"
    assert browser.evaluate(f"{names}.length") > 20
    assert browser.evaluate(f"{names}.filter((e) => e.getClientRects().length > 1).map((e) => e.textContent)") == []
    assert browser.evaluate("document.querySelectorAll('.scroll .caption, table caption').length") == 0
    frame = "document.querySelector('.scroll')"
    assert browser.evaluate(f"{frame}.scrollWidth > {frame}.clientWidth")
    first = f"{frame}.querySelector('tbody th').getBoundingClientRect().left"
    before = browser.evaluate(first)
    assert browser.evaluate(f"{frame}.scrollLeft = 200, {frame}.scrollLeft") > 0
    assert browser.evaluate(first) == before


# The contrast of a text with what is behind it, by WCAG 2's formula, for every element that holds text of its own.
CONTRAST = """(() => {
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = parse(getComputedStyle(each).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
      if (color[3] > 0) throw new Error("a half transparent ground");
    }
    throw new Error("no ground");
  };
  const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  return [...document.querySelectorAll("body *")].filter((e) => !["SCRIPT", "STYLE"].includes(e.tagName) && own(e))
    .map((element) => {
      const [a, b] = [parse(getComputedStyle(element).color), ground(element)].map(light);
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.tagName, element.textContent.slice(0, 40)];
    }).sort((a, b) => a[0] - b[0]).slice(0, 3);
})()"""


@in_browser
@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(13, 17, 23)")])
def test_every_text_stands_out(browser: Any, scheme: str, ground: str) -> None:
    """In both schemes the contrast of every text with its ground is 4.5 to 1 at least."""
    browser.scheme(scheme)
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == ground
    worst = browser.evaluate(CONTRAST)
    assert worst[0][0] >= 4.5, worst


COMPONENTS = 1  # the table to decide by is before it

COLUMN = """[...document.querySelectorAll('table')[{table}].tBodies].map(
  (body) => [...body.rows].map((row) => row.cells[{column}].textContent))"""


def column(browser: Any, table: int, number: int) -> list[list[str]]:
    """Return a column's cells, a list a body of the table."""
    found: list[list[str]] = browser.evaluate(COLUMN.format(table=table, column=number))
    return found


@in_browser
def test_columns_sort_by_click_and_key(browser: Any) -> None:
    """Numbers sort as numbers, both ways, by mouse and keyboard; the total stays last and the state is told."""
    button = f"document.querySelectorAll('table')[{COMPONENTS}].querySelectorAll('thead button')[{{0}}]"
    heads = f"[...document.querySelectorAll('table')[{COMPONENTS}].tHead.rows[0].cells]"
    state = f"{heads}.map((c) => c.getAttribute('aria-sort'))"
    browser.evaluate(f"{button.format(1)}.click()")
    rows, total = column(browser, COMPONENTS, 1)
    assert rows == ["0", "2,310", "7,200", "11,528", "112,413", "139,076", "213,072"]
    assert total == ["485,599"]
    assert browser.evaluate(state) == ["none", "ascending", *["none"] * 5]
    browser.evaluate(f"{button.format(1)}.focus()")
    browser.press("Enter", 13)
    assert column(browser, COMPONENTS, 1)[0] == rows[::-1]
    assert browser.evaluate(state)[1] == "descending"
    browser.evaluate(f"{button.format(0)}.focus()")
    browser.press(" ", 32)
    names = column(browser, COMPONENTS, 0)[0]
    assert names == sorted(names, key=str.lower)
    assert browser.evaluate(state)[:2] == ["ascending", "none"]


@in_browser
@pytest.mark.parametrize("clicks", [1, 2])
def test_what_has_no_number_is_last(browser: Any, clicks: int) -> None:
    """A dash comes after all numbers, whichever way the column is sorted."""
    heads = f"document.querySelectorAll('table')[{COMPONENTS}].querySelectorAll('thead button')"
    browser.evaluate(f"{heads}[2].click(), {heads}[3].click()")
    for _ in range(clicks - 1):
        browser.evaluate(f"{heads}[3].click()")
    cells = column(browser, COMPONENTS, 3)[0]
    assert cells[-1] == "—"
    values = [float(sort_value(cell)) for cell in cells[:-1]]
    assert values == sorted(values, reverse=clicks == 2)


@in_browser
def test_pictures_are_shown_and_nothing_is_missing(browser: Any) -> None:
    """Every picture is decoded, and the browser asked for nothing and complained of nothing."""
    images = "[...document.images].map((i) => i.complete && i.naturalWidth > 0 && i.alt.length > 0)"
    assert browser.evaluate(images) == [True] * 8
    assert browser.problems == []
