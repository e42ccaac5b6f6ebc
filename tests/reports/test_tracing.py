"""Numbers: each that a report prints is in a record, or follows from two that are; and every table adds up."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from featherpress.errors import FileError, UsageError
from featherpress.reports import write_report
from featherpress.reports.formats import DASH, MINUS

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
pytestmark = pytest.mark.usefixtures("undrawn")


def table(text: str, head: str) -> list[list[str]]:
    """Return the cells of the table whose heading begins so, without emphasis; spaces do not matter."""
    begin = r"\s*\|\s*".join(re.escape(name.strip()) for name in head.split("|"))
    found = re.search(rf"^\| +{begin}.*\n\|.*\n((?:\|.*\n?)+)", text, re.MULTILINE)
    assert found is not None, f"no table {head!r}"
    return [[cell.strip().strip("*`") for cell in line.strip("| ").split(" | ")] for line in found[1].splitlines()]


def numbers_of(value: object) -> Iterator[float]:
    """Give every number in a record."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers_of(item)
    elif isinstance(value, str):
        yield from (int(each.replace(",", "")) for each in re.findall(r"\d{1,3}(?:,\d{3})+", value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def number(cell: str) -> float:
    """Return the first number of a cell."""
    found = re.search(rf"[+{MINUS}]?\d[\d,]*(?:\.\d+)?", cell)
    assert found is not None
    return float(found[0].replace(",", "").replace(MINUS, "-"))


def test_whole_numbers_are_in_the_records(run_dir: Path, bench: Path) -> None:
    """Every number with a separator stands in a record, or is the difference of two numbers of its own row."""
    text = write_report([run_dir, bench]).read_text(encoding="utf-8")
    records = [json.loads(file.read_text(encoding="utf-8")) for file in [bench, *run_dir.rglob("*.json")]]
    known = {round(value) for record in records for value in numbers_of(record)}
    printed = 0
    for line in text.splitlines():
        found = [int(each.replace(",", "")) for each in re.findall(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?![\d.])", line)]
        gaps = {abs(a - b) for a, b in itertools.permutations(found, 2)}
        assert all(value in known or value in gaps for value in found), line
        printed += len(found)
    assert printed > 80


def test_wholes_follow_from_their_two_columns(run_dir: Path, bench: Path) -> None:
    """Each row of the table of wholes says by how much its second number is less than its first."""
    text = write_report([run_dir, bench]).read_text(encoding="utf-8")
    rows = {row[0]: row[1:] for row in table(text, "measure | teacher `featherface_v1`")}
    assert rows["width of the pyramid (channels)"][:2] == ["74", "32"]
    assert rows["BiFPN repeats"][:2] == ["3", "2"]
    assert rows["latency, eager, 640 px, batch 1"][:2] == ["120 ms", "50.0 ms"]
    assert len(rows) == 5 + 4 + 5
    for name, (one, other, said) in rows.items():
        a, b = number(one), number(other)
        if name.startswith("AP"):
            assert number(said) == pytest.approx(b - a, abs=0.0011)
        elif a == b:
            assert said == "equal"
        else:
            assert number(said) == pytest.approx(100 * abs(a - b) / a, abs=0.06)
            assert said.endswith("less" if b < a else "more")


def test_benchmarks_are_printed_as_recorded(run_dir: Path, bench: Path) -> None:
    """Each timing has its row, with units, and throughput that fits its latency."""
    timings = table(write_report([run_dir, bench]).read_text(encoding="utf-8"), "model | backend")
    results = json.loads(bench.read_text(encoding="utf-8"))["results"]
    assert len(timings) == len(results) == 8
    for row, result in zip(timings, results, strict=True):
        assert row[:2] == [result["model"], result["backend"]]
        assert number(row[4]) == pytest.approx(result["latency_ms"]["median"], rel=0.01)
        assert row[4].endswith(" ms")
        assert row[7].endswith(" MB")


def test_correlations_are_the_records(run_dir: Path) -> None:
    """The table gives the record's CKA, three decimals."""
    rows = table(write_report([run_dir]).read_text(encoding="utf-8"), "stride (pixels)")
    levels = json.loads((run_dir / "eval/correlation.json").read_text(encoding="utf-8"))["levels"]
    for row, level in zip(rows, levels, strict=True):
        assert row[1:] == [f"{level['cka'][role]:.3f}" for role in ("control", "student")]


def test_missing_settings_and_latency_are_said(run_dir: Path, edit: Edit) -> None:
    """Without settings or a benchmark the report says so and names the commands that give them."""

    def forget(record: dict[str, Any]) -> None:
        for role in ("teacher", "student"):
            record[role].pop("settings")

    edit(run_dir / "budget.json", forget)
    text = write_report([run_dir]).read_text(encoding="utf-8")
    assert "`featherpress models show NAME --json`" in text
    assert "`featherpress bench featherface_v1 featherface_v2 --json`" in text
    assert "BiFPN repeats" not in text


def test_audits_alone_are_reported(run_dir: Path) -> None:
    """Two audits are set side by side without a run; nothing is said of accuracy, training or distillation."""
    budget = json.loads((run_dir / "budget.json").read_text(encoding="utf-8"))
    for role in ("teacher", "student"):
        Path(f"{role}.json").write_text(json.dumps(budget[role]), encoding="utf-8")
    paths = [Path("teacher.json"), Path("student.json")]
    text = write_report(paths, Path("counted")).read_text(encoding="utf-8")
    assert text.startswith("# Counting `featherface_v1` against `featherface_v2`")
    assert [row[1:3] for row in table(text, "component")][-1] == ["485,599", "256,812"]
    assert "AP" not in text
    assert "Training" not in text
    with pytest.raises(UsageError, match="expected --out DIR"):
        write_report(paths)


def test_settings_come_from_models_records_too(run_dir: Path, edit: Edit) -> None:
    """What `models show NAME --json` printed fills in what a run did not record."""
    edit(run_dir / "budget.json", lambda record: record["teacher"].pop("settings"))
    record = {"schema": "featherpress.model/1", "name": "featherface_v1", "settings": {"bifpn_repeats": 3, "a": True}}
    Path("v1.json").write_text(json.dumps(record), encoding="utf-8")
    rows = table(write_report([run_dir, Path("v1.json")]).read_text(encoding="utf-8"), "setting")
    assert ["bifpn_repeats", "3", "2"] in rows
    assert ["a", "yes", DASH] in rows


def test_exports_are_reported(run_dir: Path) -> None:
    """Files, their largest difference from torch, and what int8 costs in AP."""
    record = {
        "schema": "featherpress.export/1",
        "model": "featherface_v2",
        "files": [
            {
                "kind": "onnx",
                "precision": "float32",
                "bytes": 1_100_000,
                "opset": 20,
                "parity": {
                    "tolerance": 1e-4,
                    "checked": [
                        {"shape": [1, 3, 64, 64], "difference": {"boxes": 2e-6, "logits": 1e-6}},
                        {"shape": [2, 3, 96, 64], "difference": {"boxes": 1.5e-6, "logits": 4e-7}},
                    ],
                },
            },
            {"kind": "int8", "precision": "int8", "bytes": 400_000},
        ],
        "evaluation": {"float32": {"ap": 0.596}, "int8": {"ap": 0.581}},
    }
    Path("v2.export.json").write_text(json.dumps(record), encoding="utf-8")
    text = write_report([run_dir, Path("v2.export.json")]).read_text(encoding="utf-8")
    one, other = table(text, "model | file")
    assert one[3:] == ["1,100,000 B (1.10 MB)", "20", f"2.0e{MINUS}06", f"1.0e{MINUS}04"]
    assert other[4:] == [DASH, DASH, DASH]
    assert f"AP of `featherface_v2`: 0.596 in float32, 0.581 in int8, {MINUS}0.015." in text


@pytest.mark.parametrize("content", ['{"schema": "featherpress.diff/1"}', "{}", "[1]", "nonsense"])
def test_other_files_are_refused(run_dir: Path, content: str) -> None:
    """A file that is no record of a known kind is named in one sentence."""
    Path("x.json").write_text(content, encoding="utf-8")
    with pytest.raises(FileError, match=r"x\.json(, entry 1)?: expected"):
        write_report([run_dir, Path("x.json")])


def test_a_similarity_beyond_1_is_refused(run_dir: Path, edit: Edit) -> None:
    """A CKA that cannot be is an error that names the place."""
    edit(run_dir / "eval/correlation.json", lambda record: record["levels"][1]["cka"].update(student=1.5))
    with pytest.raises(FileError, match=r"levels\[2\]\.cka\.student"):
        write_report([run_dir])
