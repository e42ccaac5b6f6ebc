"""LaTeX tables: their text against a golden file, what is escaped, and that every row has its columns."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from featherpress.escaping import escape_latex
from featherpress.reports import write_report
from featherpress.reports.blocks import Table, bold
from featherpress.reports.writers.latex import to_latex

PDFLATEX = shutil.which("pdflatex")
DOCUMENT = r"""\documentclass[10pt]{article}
\usepackage[utf8]{inputenc}\usepackage{array,booktabs,longtable}
\begin{document}
\input{tables.tex}
\end{document}
"""


@pytest.fixture
def tables(run_dir: Path, bench: Path, undrawn: None) -> str:
    """All tables of a complete run and a benchmark."""
    return write_report([run_dir, bench], latex=True).with_name("tables.tex").read_text(encoding="utf-8")


def test_tables_are_the_golden_file(tables: str, golden: Callable[[str, str], None]) -> None:
    """A complete run gives exactly the agreed text."""
    golden("report_tables.tex", tables)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("100 % & $5", r"100 \% \& \$5"),
        ("a_b#c", r"a\_\allowbreak{}b\#c"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        ("< 16 > 3", r"\textless{} 16 \textgreater{} 3"),
        ("\N{MINUS SIGN}3 \N{PLUS-MINUS SIGN} 1 \N{MULTIPLICATION SIGN} \N{EM DASH}", r"$-$3 $\pm$ 1 $\times$ ---"),
    ],
)
def test_special_characters_are_escaped(text: str, escaped: str) -> None:
    """What LaTeX would read as a command is printed as it is."""
    assert escape_latex(text) == escaped


def test_marks_become_commands() -> None:
    """Bold and code are LaTeX's, one inside the other too, and their content is escaped."""
    table = Table(name="t", title="A `b_c`", header=["", "n"], rows=[["x", "1"], bold(["`a_b`", "2 %"])], align="lr")
    text = to_latex([table])
    assert r"\textbf{\texttt{a\_\allowbreak{}b}} & \textbf{2 \%} \\" in text
    assert r"\caption{A \texttt{b\_\allowbreak{}c}}" in text


def test_every_row_has_its_columns(tables: str) -> None:
    """Each row of each table has one cell a column, and environments open and close in pairs."""
    assert len(re.findall(r"\\begin\{longtable\}", tables)) == 14
    for columns, body in re.findall(r"\\begin\{longtable\}\{([^\n]*)\}\n(.*?)\\end\{longtable\}", tables, re.DOTALL):
        types = re.sub(r">\{.*?\}p\{.*?\}", "l", columns)
        assert set(types) <= {"l", "r"}
        rows = body.partition("\\endlastfoot\n")[2].splitlines()
        assert rows
        assert all(len(re.split(r"(?<!\\)&", row)) == len(types) for row in rows)
        assert all(row.endswith(r" \\") for row in rows)


def test_labels_are_unique(tables: str) -> None:
    """Tables can be referred to: no two share a label."""
    labels = re.findall(r"\\label\{(.*?)\}", tables)
    assert len(labels) == len(set(labels)) == 14
    assert "tab:components" in labels


def test_repeated_tables_are_numbered() -> None:
    """The same table of several runs has a number in its label."""
    table = Table(name="t", title="T", header=["a"], rows=[["1"]], align="r")
    assert re.findall(r"\\label\{(.*?)\}", to_latex([table, table])) == ["tab:t", "tab:t-2"]


@pytest.mark.skipif(PDFLATEX is None, reason="needs pdflatex")
def test_tables_compile(run_dir: Path, classifier: Path, bench: Path, tmp_path: Path, undrawn: None) -> None:
    """In a plain article no table is an error, long names included."""
    write_report([run_dir, classifier, bench], tmp_path / "both", latex=True)
    (tmp_path / "both/paper.tex").write_text(DOCUMENT, encoding="utf-8")
    done = subprocess.run(
        [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path / "both",
        capture_output=True,
        check=False,
    )
    said = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, said[-2000:]
