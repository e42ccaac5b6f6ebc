"""The table to decide by: what is in it, what is best, and how texts of records are set."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from featherpress.reports import write_report
from featherpress.reports.blocks import typeset
from featherpress.reports.formats import DASH, MINUS
from featherpress.verdicts import Scores
from featherpress.verdicts.tables import Side

pytestmark = pytest.mark.usefixtures("undrawn")


def read(text: str) -> dict[str, list[str]]:
    """Return the first table by its first column, and where no text but the title was before it."""
    head, table = text.split("\n\n")[1:3]
    assert head.startswith("*What each model costs")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {line[0]: line[1:] for line in lines if not line[0].startswith(":")}


def test_a_run_is_decided_by_a_row_a_model(run_dir: Path, bench: Path) -> None:
    """Costs, score and latency of each model under its name, the best in bold, and nothing before it but the title."""
    found = read(write_report([run_dir, bench]).read_text(encoding="utf-8"))
    assert found["model"] == ["parameters", "MACs", "AP", "latency, onnxruntime fp32, 640 px, batch 1", "weight file"]
    teacher, control, student = (
        found[f"`featherface_{name}"] for name in ("v1`, teacher", "v2`, control", "v2`, student")
    )
    assert teacher[:4] == ["485,599", "927,736,256", "**0.812**", "48.0 ms"]
    assert student[:2] == control[:2] == ["**256,812**", "**429,603,776**"]
    assert student[2].startswith("0.596 ±")
    assert student[3] == control[3] == "**20.0 ms**"


def test_a_latency_belongs_to_the_model_of_its_size(run_dir: Path, bench: Path) -> None:
    """One factory builds teacher and student: each has what was timed with its parameters, or nothing."""
    budget = json.loads((run_dir / "budget.json").read_text(encoding="utf-8"))
    for role in ("teacher", "student"):
        budget[role]["model"] = "nets:net"
        Path(f"{role}.json").write_text(json.dumps(budget[role]), encoding="utf-8")
    record = json.loads(bench.read_text(encoding="utf-8"))
    for timing in record["results"]:
        timing["model"] = "nets:net@small.pth" if timing["params"] == 256_812 else "nets:net"
        timing["params"] = {485_599: 111}.get(timing["params"], timing["params"])
    bench.write_text(json.dumps(record), encoding="utf-8")
    text = write_report([Path("teacher.json"), Path("student.json"), bench], Path("out")).read_text(encoding="utf-8")
    found = read(text)
    assert found["`nets:net@student`"][2] == "20.0 ms"
    assert found["`nets:net@teacher`"][2] == DASH
    assert "\n| latency" not in text
    assert "`featherpress bench nets:net@WEIGHTS nets:net@WEIGHTS --json`" in text


def test_latencies_of_two_benchmarks_do_not_compare(one_seed: Path, bench: Path) -> None:
    """What two benchmarks timed stands there, none the best; a benchmark of all models is taken before any other."""
    record = json.loads(bench.read_text(encoding="utf-8"))
    apart = [Path(f"{name}.json") for name in ("featherface_v1", "featherface_v2")]
    for file in apart:
        results = [timing | {"size": 640} for timing in record["results"] if timing["model"] == file.stem][-1:]
        results[0]["latency_ms"] = {"median": 7.0, "p10": 6.0, "p90": 8.0}
        file.write_text(json.dumps(record | {"results": results}), encoding="utf-8")
    text = write_report([one_seed, *apart]).read_text(encoding="utf-8")
    found = read(text)
    assert [cells[3] for cells in found.values()][1:] == ["7.00 ms"] * 3
    assert "latencies are not of one benchmark, and do not compare" in text
    text = write_report([one_seed, *apart, bench]).read_text(encoding="utf-8")
    assert [cells[3] for cells in read(text).values()][1:] == ["48.0 ms", "**20.0 ms**", "**20.0 ms**"]
    assert "not of one benchmark" not in text


def test_scores_have_intervals_where_values_were_saved(run_dir: Path) -> None:
    """The interval is of what lies beside each record; one of other values, or none, is a dash."""

    def scores(files: Sequence[Path], order: Sequence[str] | None) -> Side:
        assert order is None
        means = {"teacher.json": [0.812], "control": [0.2]}.get(files[0].name, [0.594, 0.598])
        values = np.array([[0.0, 2 * mean] * 50 for mean in means])
        names = tuple(map(str, range(100)))
        side = {"name": "", "metric": "AP", "seeds": ("0",), "examples": names, "bounded": True}
        return Side(scores=Scores.of(values), **side)  # type: ignore[arg-type]

    found = read(write_report([run_dir], read_scores=scores).read_text(encoding="utf-8"))
    assert found["model"][3] == "95 % interval"
    intervals = {name: cells[3] for name, cells in found.items() if name != "model"}
    assert intervals["`featherface_v2`, control"] == DASH
    for name, mean in (("v1`, teacher", 0.812), ("v2`, student", 0.596)):
        low, high = map(float, re.findall(r"[\d.]+", intervals[f"`featherface_{name}"]))
        assert low < mean < high <= 1


def test_what_was_counted_is_called_by_its_name(run_dir: Path) -> None:
    """Two audits are decided by parameters, MACs and bytes; neither is called first or second."""
    budget = json.loads((run_dir / "budget.json").read_text(encoding="utf-8"))
    for role in ("teacher", "student"):
        Path(f"{role}.json").write_text(json.dumps(budget[role]), encoding="utf-8")
    text = write_report([Path("teacher.json"), Path("student.json")], Path("out")).read_text(encoding="utf-8")
    assert read(text)["`featherface_v2`"][:2] == ["**256,812**", "**429,603,776**"]
    assert not re.search(r"\b(first|second) (`|parameters|MACs|against)", text)
    assert "| `featherface_v1` parameters |" in text


def test_a_lone_model_has_no_best(run_dir: Path) -> None:
    """Nothing is bold where there is nothing to compare with."""
    budget = json.loads((run_dir / "budget.json").read_text(encoding="utf-8"))
    Path("one.json").write_text(json.dumps(budget["student"]), encoding="utf-8")
    text = write_report([Path("one.json")], Path("out")).read_text(encoding="utf-8")
    assert read(text)["`featherface_v2`"][0] == "256,812"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("the 95% interval -0.069 to 0.394", f"the 95 % interval {MINUS}0.069 to 0.394"),
        ("within 489K +- 13K (-.5)", f"within 489K ± 13K ({MINUS}.5)"),
        ("16-32 px, 1e-05, V1 - x, 1 %", "16-32 px, 1e-05, V1 - x, 1 %"),
        ("`a -1 5%` and -1", f"`a -1 5%` and {MINUS}1"),
    ],
)
def test_signs_are_written_in_one_way(text: str, printed: str) -> None:
    """A minus, per cent and plus-minus of records become the report's; ranges, exponents and code stay."""
    assert typeset(text) == printed


def test_no_other_minus_or_per_cent_is_printed(run_dir: Path, bench: Path) -> None:
    """A whole report, in all its formats, has one minus sign and a space before %."""
    file = write_report([run_dir, bench], page=True)
    text = re.sub(r"```.*?```|`[^`]*`", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.search(r"(?<![\w.\-:|])-\.?\d|\d%", text)
    page = re.sub(
        r"<(style|script|pre)\b.*?</\1>|<[^>]*>", "", file.with_name("report.html").read_text("utf-8"), flags=re.DOTALL
    )
    assert not re.search(r"(?<![\w.\-])-\.?\d|\d%", page)
