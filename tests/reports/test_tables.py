"""Tables and numbers as the reader sees them."""

import pytest

from featherpress.reports import formats
from featherpress.reports.blocks import Table
from featherpress.reports.formats import DASH, MINUS
from featherpress.reports.writers.latex import to_latex
from featherpress.reports.writers.markdown import fence, to_markdown
from featherpress.reports.writers.markdown import render_table as table
from featherpress.reports.writers.page import to_page


def test_columns_are_aligned() -> None:
    """All lines of a table are equally long, text at the left and numbers at the right."""
    text = table(["name", "n"], [["a", "1,000"], ["longer name", "2"]], align="lr")
    assert text.splitlines() == [
        "| name        |     n |",
        "| :---------- | ----: |",
        "| a           | 1,000 |",
        "| longer name |     2 |",
    ]


def test_cells_cannot_break_the_table() -> None:
    """Bars, line ends and tags in a record stay inside their cell."""
    line = table(["why"], [["a | b\nc <script> < 16"]], align="l").splitlines()[-1]
    assert line == "| a \\| b c &lt;script> < 16 |"


def test_uneven_rows_are_a_bug() -> None:
    """A row with too few cells is not padded in silence."""
    with pytest.raises(ValueError, match="shorter"):
        table(["a", "b"], [["1"]], align="lr")


def test_fence_outlasts_its_content() -> None:
    """A recipe that holds a fence does not end the block."""
    assert fence("```\nx", "toml") == "````toml\n```\nx\n````"


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (formats.integer(1_616_375_200), "1,616,375,200"),
        (formats.integer(None), DASH),
        (formats.signed_integer(-3_401), f"{MINUS}3,401"),
        (formats.signed_integer(812), "+812"),
        (formats.signed_integer(0), "0"),
        (formats.bounds(None, 450), "at most 450"),
        (formats.bounds(7, None), "at least 7"),
        (formats.bounds(7, 7), "7"),
        (formats.bounds(476_000, 502_000), "476,000 to 502,000"),
        (formats.bounds(None, None), DASH),
        (formats.fraction(0.5996), "0.600"),
        (formats.fraction(None), DASH),
        (formats.spread(0.61, 0.0042), "0.610 ± 0.004"),
        (formats.spread(0.61, None), "0.610"),
        (formats.change(0.0312), "+0.031"),
        (formats.change(-0.00003), f"{MINUS}0.00003"),
        (formats.change(0.0), "0.000"),
        (formats.relative_change(485_599, 256_812), f"{MINUS}47.1 %"),
        (formats.relative_change(7_200, 11_424), "+58.7 %"),
        (formats.relative_change(9, 9), "0.0 %"),
        (formats.relative_change(9, 0), f"{MINUS}100.0 %"),
        (formats.relative_change(1_000_000, 1), f"{MINUS}99.9999 %"),
        (formats.relative_change(1_000_000, 1_000_001), "+0.0001 %"),
        (formats.relative_change(1_000, 10_000_000), "+999,900.0 %"),
        (formats.relative_change(10**30, 1_226), f"{MINUS}100.0 %"),
        (formats.relative_change(0, 5), "new"),
        (formats.relative_change(0, 0), DASH),
        (formats.less(100, 100), "equal"),
        (formats.less(100, 150), "50.0 % more"),
        (formats.less(1_000_000, 999_999), "0.0001 % less"),
        (formats.less(1_000_000, 1), "99.9999 % less"),
        (formats.less(100, 0), "100.0 % less"),
        (formats.size(40_002_000_000), "40,002,000,000 B (40,002.00 MB)"),
        (formats.size(1_048_728), "1,048,728 B (1.05 MB)"),
        (formats.milliseconds(0.0745), "0.0745 ms"),
        (formats.milliseconds(12.34), "12.3 ms"),
        (formats.milliseconds(1_234.5), "1,234 ms"),
        (formats.milliseconds(0.0), "0.00 ms"),
        (formats.duration(59.96), "1 min 00 s"),
        (formats.duration(12.34), "12.3 s"),
        (formats.duration(3_599.9), "1 h 00 min"),
        (formats.label("pyramid_attention"), "pyramid attention"),
        (formats.label("bifpn"), "BiFPN"),
    ],
)
def test_numbers_are_printed(printed: str, expected: str) -> None:
    """Separators, signs, units, and a dash for what is not there."""
    assert printed == expected


def test_a_table_without_rows_is_written() -> None:
    """Where everything is locked, say, no width is left to list: its head stands there in every format."""
    table = Table(name="widths", title="Axes", header=["axis", "before"], rows=[], align="lr", records=[])
    assert "axis & before" in to_latex([table])
    assert to_page([table], {}).count("<th ") == 2
    assert to_markdown([table]).splitlines()[2:] == ["| axis | before |", "| :--- | -----: |"]
