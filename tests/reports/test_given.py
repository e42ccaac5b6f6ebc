"""Numbers measured elsewhere: read as they were given, set beside costs by name, and refused in a sentence."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from featherpress.errors import DataError, FileError, UsageError
from featherpress.records.evaluation import SubsetScores
from featherpress.records.sweep import SWEEP, Sweep
from featherpress.reports import write_report
from featherpress.reports.figures.tradeoff import score_against_cost
from featherpress.reports.formats import DASH, MINUS
from featherpress.reports.given import read_given

pytestmark = pytest.mark.usefixtures("undrawn")

NUMBERS = "model,top1,loss\nfeatherface_v2,74.20,-1.5\nfeatherface_v1,76.1,\n"


@pytest.fixture
def audits(one_seed: Path) -> list[Path]:
    """The audits of both models, in files of their own, in the current directory."""
    budget = json.loads((one_seed / "budget.json").read_text(encoding="utf-8"))
    for role in ("teacher", "student"):
        Path(f"{role}.json").write_text(json.dumps(budget[role]), encoding="utf-8")
    return [Path("teacher.json"), Path("student.json")]


@pytest.fixture
def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a file of numbers, and return the report on it and on others."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, *others: Path, name: str = "mine.csv") -> str:
        Path(name).write_text(text, encoding="utf-8")
        return write_report([Path(name), *others], Path("out")).read_text(encoding="utf-8")

    return write


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of the first table by model, the header under "model"."""
    table = re.search(r"(^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()]
    return {cells[0].strip("`"): cells[1:] for cells in lines}


def test_numbers_stand_beside_what_was_counted_and_timed(
    reported: Callable[..., str], audits: list[Path], bench: Path
) -> None:
    """A row has the numbers with their digits, marked as given, then parameters, MACs and latencies by the name."""
    text = reported(NUMBERS, *audits, bench)
    found = rows(text)
    assert text.startswith("# Comparing `featherface_v2` with `featherface_v1`\n\n*Numbers as given, beside")
    assert text.index("| `featherface_v2`") < text.index("Contents: [As given in mine.csv](#as")
    assert found["model"][:5] == ["top1, as given", "loss, as given", "parameters", "MACs", found["model"][4]]
    assert found["model"][4] == "latency, eager, 320 px, batch 1"
    assert found["featherface_v2"][:5] == ["74.20", f"{MINUS}1.5", "**256,812**", "**429,603,776**", "**12.5 ms**"]
    assert found["featherface_v1"][:5] == ["76.1", "—", "485,599", "927,736,256", "30.0 ms"]
    assert "From `mine.csv`, `teacher.json`, `student.json` and `bench.json`." in text
    assert "nothing is said of accuracy" not in text
    assert (Path("out/figures/given-0.png")).exists()


def test_numbers_of_a_name_that_several_models_have_are_not_guessed(
    reported: Callable[..., str], audits: list[Path], bench: Path
) -> None:
    """Where audits of two sizes have the name, no cost stands beside the numbers, and that is said."""
    for file in audits:
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"model": "featherface_v2"}), "utf-8")
    text = reported(NUMBERS, *audits, bench)
    assert set(rows(text)["featherface_v2"][2:]) <= {DASH}
    assert "Models of several sizes are called `featherface_v2`: which one the numbers are of is not said." in text


def test_evaluations_of_predictions_are_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of `evaluate --predictions --out` are the rows of one table, a column a subset."""
    monkeypatch.chdir(tmp_path)
    for name, hard in (("old", 0.5), ("new", None)):
        SubsetScores(easy=0.91234, medium=0.8, hard=hard).save(Path(name) / "evaluation.json")
    text = write_report([Path("old"), Path("new")], Path("out")).read_text(encoding="utf-8")
    assert text.startswith("# Comparing `old` with `new`\n")
    assert rows(text)["model"][:3] == ["AP, easy, as given", "AP, medium, as given", "AP, hard, as given"]
    assert rows(text)["old"][:3] == ["0.9123", "0.8000", "0.5000"]
    assert rows(text)["new"][:3] == ["0.9123", "0.8000", DASH]
    assert "From `old/evaluation.json` and `new/evaluation.json`." in text


def test_a_time_of_another_size_is_not_a_models(reported: Callable[..., str], audits: list[Path], bench: Path) -> None:
    """A benchmark of the same name that was of other parameters is passed over."""
    record = json.loads(bench.read_text(encoding="utf-8"))
    for timing in record["results"]:
        timing["params"] += timing["model"] == "featherface_v2"
    bench.write_text(json.dumps(record), encoding="utf-8")
    assert rows(reported(NUMBERS, *audits, bench))["featherface_v2"][4] == DASH


def test_numbers_keep_digits_that_a_float_has_not(reported: Callable[..., str]) -> None:
    """Where nothing was counted or timed the title speaks of neither."""
    text = reported(f"model,a,b\nx,0.{'1' * 30},+{'9' * 25}\ny,1E3,.50\n")
    found = rows(text)
    assert found["x"] == [f"0.{'1' * 30}", f"{int('9' * 25):,}"]
    assert found["y"] == ["1,000", "0.50"]
    assert "*Numbers as given. From `mine.csv`.*" in text


def test_latencies_of_two_benchmarks_have_a_column_each(
    reported: Callable[..., str], audits: list[Path], bench: Path
) -> None:
    """Times of two benchmarks do not compare: none is the least of both, and none is lost."""
    record = json.loads(bench.read_text(encoding="utf-8"))
    apart = [Path(f"{name}.json") for name in ("featherface_v1", "featherface_v2")]
    for file in apart:
        results = [timing for timing in record["results"] if timing["model"] == file.stem][:1]
        file.write_text(json.dumps(record | {"results": results}), encoding="utf-8")
    found = rows(reported(NUMBERS, *audits, *apart))
    assert found["model"][4:] == [f"latency, eager, 320 px, batch 1, `{file}`" for file in apart]
    assert (found["featherface_v1"][4:], found["featherface_v2"][4:]) == (["30.0 ms", DASH], [DASH, "12.5 ms"])


def test_each_latency_has_its_figure(reported: Callable[..., str], audits: list[Path], bench: Path) -> None:
    """Every setting in which two models or more were timed is drawn, a point for each of them."""
    record = json.loads(bench.read_text(encoding="utf-8"))
    text = reported("model,top1\nfeatherface_v2,74\nfeatherface_v1,76\n", *audits, bench)
    settings = {f"{t['backend']}, {t['size']} px, batch {t.get('batch', 1)}" for t in record["results"]}
    assert len(settings) == 4
    assert set(re.findall(r"`top1` as given, against latency, (.*?)\.", text)) == settings


def test_a_sweep_and_numbers_stand_in_one_report(reported: Callable[..., str], audits: list[Path], bench: Path) -> None:
    """Neither is left out for the other, with models that were counted and without, and a benchmark is shown too."""
    Path("curve").mkdir()
    record = Sweep(recipe="r", model="net", quantity="params", made_by="fit", limits=(9,), seeds=(0,))
    record.save(Path("curve") / SWEEP)
    for others in ([bench], [bench, *audits]):
        text = reported(NUMBERS, Path("curve"), *others)
        assert "What each budget costs: `net`" in text
        assert "## As given in `mine.csv`" in text
        assert "## Latency, throughput and memory" in text


def test_numbers_alone_make_a_report(reported: Callable[..., str]) -> None:
    """Without audits nothing is drawn, and a note says for which models they are missing."""
    text = reported(NUMBERS)
    assert rows(text)["model"] == ["top1, as given", "loss, as given"]
    assert "Not counted: `featherface_v2`, `featherface_v1`." in text
    assert "Not timed: `featherface_v2`, `featherface_v1`." in text
    assert "featherpress report mine.csv --out out" in text
    assert not [*Path("out/figures").iterdir()]


def test_numbers_beside_a_run_come_after_it(reported: Callable[..., str], one_seed: Path) -> None:
    """A run's report keeps its title; its audits count."""
    text = reported(NUMBERS, one_seed.resolve())
    assert text.startswith("# Distilling")
    assert re.search(rf"^\| `featherface_v2` +\| +74.20 \| +{MINUS}1.5 \| +\*\*256,812\*\* \|", text, re.MULTILINE)


def test_seeds_have_mean_and_spread(reported: Callable[..., str]) -> None:
    """Several rows of a model are seeds; one that lacks a number is said to."""
    found = rows(reported("model,seed,top1,loss\na,0,76.0,1\na,1,77.0,\nb,0,70,2\n"))
    assert found["a"] == ["2", "76.50 ± 0.71", "1 (1 of 2 seeds)"]
    assert found["b"] == ["1", "70", "2"]


def test_scores_per_example_give_an_interval(reported: Callable[..., str]) -> None:
    """The paired difference to the first model that has scores, with its interval, in the order of its examples."""
    Path("x").mkdir()
    for name, shift in (("a", 0.0), ("b", 0.25)):
        lines = [f"e{i},{(i % 4) / 4 + shift}" for i in range(40)]
        Path(f"x/{name}.csv").write_text("\n".join(["example,score", *lines[:: -1 if shift else 1]]), encoding="utf-8")
    text = reported("model,top1,scores\nz,3,\na,1,a.csv\nb,2,b.csv\n", name="x/mine.csv")
    found = rows(text)
    assert found["model"][1:] == ["score less that of `a`", "its 95 % interval"]
    assert [found[name][1:] for name in "zab"] == [["—", "—"], ["—", "—"], ["+0.250", "[+0.250, +0.250]"]]
    assert "over 40 examples" in text
    assert "not about how they were trained" in text
    Path("x/b.csv").write_text("example,score\nother,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="do not match"):
        reported("model,top1,scores\na,1,a.csv\nb,2,b.csv\n", name="x/mine.csv")
    with pytest.raises(FileError, match=r"c\.csv: expected a file of scores"):
        reported("model,top1,scores\na,1,a.csv\nb,2,c.csv\n", name="x/mine.csv")


def test_json_is_read_as_csv_is(reported: Callable[..., str], tmp_path: Path) -> None:
    """A list of tables gives the same as the rows, in its own digits."""
    text = '[{"model": "featherface_v2", "top1": 74.20, "loss": -1.5}, {"model": "featherface_v1", "top1": 76.1}]'
    assert rows(reported(text, name="mine.json")) == rows(reported(NUMBERS))


def test_tabs_are_read_as_commas_are(reported: Callable[..., str]) -> None:
    """A table with tabs gives the same."""
    assert rows(reported(NUMBERS.replace(",", "\t"), name="mine.tsv")) == rows(reported(NUMBERS))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,top1\na,1\n", "expected a column `model`, got name, top1"),
        ("", "expected a row a model, got none"),
        ("model,top1\n", "expected a row a model, got none"),
        ("model,seed\na,1\n", "expected a column of numbers beside model, seed, got none"),
        ("model,top1\na,1\nb,2\na,3\n", "line 4: 'a' is in line 2 too, and no `seed` tells them apart"),
        ("model,seed,top1\na,1,1\na,1,3\n", "line 3: 'a' is in line 2 too"),
        ("model,top1\na,1\nb,76.1%\n", "line 3, column 'top1': expected a number or nothing, got '76.1%'"),
        ("model,top1\na,nan\n", "line 2, column 'top1': expected a number or nothing, got 'nan'"),
        ("model,top1\na,1_0\n", "line 2, column 'top1'"),
        ("model,top1\na,1e999\n", "line 2, column 'top1'"),
        ("model,top1\na,1,2\n", "line 2: expected 2 cells, got 3"),
        ("model;top1\na;1,2\n", "expected commas or tabs between columns and a point in numbers, got 'model;top1'"),
        ("model,top1\n,1\n", "line 2: expected a model, got an empty cell"),
        ("model,top1,top1\na,1,2\n", "expected columns with names of their own"),
        ("model,seed,top1,scores\na,0,1,x.csv\na,1,1,\n", "'a' has `scores` of some of its seeds alone"),
        ('[{"model": "a", "top1": "high"}]', "entry 1, 'top1': expected a number or nothing, got 'high'"),
        ('[{"model": "a", "top1": true}]', "entry 1, 'top1': expected a number or nothing, got True"),
        ('[{"model": "a", "top1": NaN}]', "entry 1, 'top1'"),
        ("[1]", "entry 1: expected a table of one model's numbers"),
        ("[", "expected JSON, got a file that breaks off"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    """No models, no numbers, text in numbers and rows that nothing tells apart each end in one line with the place."""
    file = tmp_path / f"mine.{'json' if text.startswith('[') else 'csv'}"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(FileError) as raised:
        read_given(file)
    assert str(file) in str(raised.value)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_report_of_numbers_needs_a_place(tmp_path: Path) -> None:
    """Without a run there is no folder for the report but the one that is named."""
    (tmp_path / "mine.csv").write_text(NUMBERS, encoding="utf-8")
    with pytest.raises(UsageError, match="expected --out DIR"):
        write_report([tmp_path / "mine.csv"])


def test_a_point_a_model() -> None:
    """Every model that has the cost is a point at its mean, and no other."""
    scores = {"a": [0.5, 0.7], "b": [0.4], "c": [0.3]}
    axes = score_against_cost({"a": 1e6, "b": 2e6}, scores, cost="parameters", metric="top1").axes[0]
    points = [(bar.lines[0].get_xdata()[0], bar.lines[0].get_ydata()[0]) for bar in axes.containers]  # type: ignore[attr-defined]
    assert points == [(1e6, pytest.approx(0.6)), (2e6, 0.4)]
    assert axes.xaxis.get_major_formatter()(1.2e6) == "1.2M"
