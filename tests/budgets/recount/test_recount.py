"""A published table counted again: equal, explained by what was measured, or open; on from where it was stopped."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from featherpress.budgets.recount import running
from featherpress.budgets.recount.claims import Claim, ClaimRow, Unit, find_unit, read_claims
from featherpress.budgets.recount.judging import Recount, judge_row
from featherpress.budgets.recount.measuring import Measured, State
from featherpress.budgets.recount.printing import recount_csv, recount_markdown, render_recount
from featherpress.budgets.recount.running import recount
from featherpress.cli import app
from featherpress.errors import FeatherpressError, FileError, UsageError

FACTORY = "published_nets:make"
# By hand, at 32 x 32: a 3x3 convolution of 3 to 8 channels has 216 products a pixel and 224 weights.
PLAIN, WEIGHTS = 216 * 32 * 32, 224


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a table into a folder where its factory is found."""
    shutil.copy(Path(__file__).with_name("published_nets.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(*rows: str, heading: str = "model,params,macs,size") -> Path:
        (tmp_path / "table.csv").write_text("\n".join([heading, *rows]) + "\n")
        return tmp_path / "table.csv"

    return write


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in this process, which is faster."""

    def measure_all(plans: Any, *, jobs: int, ask: bool) -> Any:
        assert jobs == 1
        yield from ((line, running._measure(plan, ask)) for line, plan in plans.items())

    monkeypatch.setattr(running, "_measure_all", measure_all)


def count_again(path: Path, *mapping: str, **keywords: Any) -> Recount:
    return recount(read_claims(path, mapping), table=path.name, factory=FACTORY, **keywords)


def test_each_figure_gets_its_reason(table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verdict once, each by hand."""
    normed, lstm = PLAIN + 2 * 8 * 32 * 32 + 8 * 32 * 32, 64 * 4 * 8 * (8 + 8)
    path = table(
        f"plain,{WEIGHTS},{PLAIN},32",
        "reads,112,110592,32",
        f"normed,{WEIGHTS + 16},{normed},32",
        f"folding,{32 + 584},{(24 + 576) * 1024},32",
        f"recurrent,{392 + 576},{8 * 48 * 64},32",
        f"wide,{8 * WEIGHTS},{8 * PLAIN},32",
        f"wider,{WEIGHTS},{PLAIN},32",
        "killer,1,1,32",
        "unknown,1,1,32",
    )
    monkeypatch.setattr(running, "_TASKS", 2)  # processes are replaced on the way
    result = count_again(path, jobs=2, kept=tmp_path / "kept.jsonl")
    found = {row.name: (row.verdict, row.reason) for row in result.rows}
    norms = "norms, adaptive pooling and resampling are counted"
    assert found["plain"] == found["reads"] == found["wide"] == ("equal", "")
    assert found["normed"] == ("convention", norms)
    assert found["folding"] == ("state", "after its blocks are re-parameterised")
    assert found["recurrent"] == ("wrong", f"leaves out {lstm:,} MACs of aten::lstm")
    assert found["wider"] == ("model", "the figures are those of plain")
    assert found["killer"] == ("failed", "the process that counted it was killed")
    assert found["unknown"] == ("failed", "calling 'published_nets:make' with name failed: KeyError: 'unknown'")
    assert result.summary == {"equal": 3, "convention": 1, "state": 1, "model": 1, "wrong": 1, "failed": 2}
    rows = {row.name: row for row in result.rows}
    assert rows["recurrent"].macs == 8 * 48 * 64 + lstm
    assert rows["recurrent"].deviation == pytest.approx(8 * 48 * 64 / (8 * 48 * 64 + lstm) - 1)
    deviations = [abs(row.deviation) for row in result.rows if row.deviation is not None]
    assert deviations == sorted(deviations, reverse=True)


@pytest.mark.usefixtures("here")
def test_what_the_factory_builds_may_be_the_wrong_model(table: Any) -> None:
    """A row whose name builds what another row describes is named; a figure that nothing gives stays open."""
    path = table(f"plain,{WEIGHTS},{PLAIN},32", "wide,5000,99999,32", f"wider,{8 * WEIGHTS},{8 * PLAIN},32")
    found = {row.name: (row.verdict, row.reason) for row in count_again(path).rows}
    assert found["wide"] == ("model", "the factory builds what the table calls wider")
    path = table(f"plain,{WEIGHTS},{PLAIN},32", "wide,5000,99999,32", "reads,112,110592,32")
    found = {row.name: (row.verdict, row.reason) for row in count_again(path).rows}
    assert found["wide"] == ("open", "params differ; macs differ")


@pytest.mark.usefixtures("here")
def test_figures_are_another_models_only_where_the_weights_are(table: Any) -> None:
    """A model of the size that was published is that model, whatever else its MACs are like."""
    path = table(f"plain,{WEIGHTS},999,32", f"wide,{WEIGHTS},999,32", "reads,112,110592,32")
    found = {row.name: row.verdict for row in count_again(path).rows}
    assert found["plain"] == "open"


def test_a_note_on_another_path_explains() -> None:
    """Where a switch of the model leads to the published amount, the count's note is the reason."""
    measured = Measured(
        name="m",
        state=State(params=5, macs=40, with_norms=40),
        notes=("fused_attn is True: the other way costs 1,030 MACs",),
    )
    row = ClaimRow(2, "m", {}, "", {"params": Claim("5"), "macs": Claim("1030")})
    judged = judge_row(row, measured, {"params": Unit(), "macs": Unit()})
    assert (judged.verdict, judged.reason) == ("state", measured.notes[0])


@pytest.mark.usefixtures("here")
def test_nothing_is_downloaded(table: Any) -> None:
    """A factory that fetches a backbone unless told otherwise is told so, as `audit` tells it."""
    path = table(f"plain,{WEIGHTS},{PLAIN},32")
    result = recount(read_claims(path), table=path.name, factory="published_nets:fetching")
    assert [row.verdict for row in result.rows] == ["equal"]


@pytest.mark.usefixtures("here")
def test_it_goes_on_where_it_was_stopped(table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is not counted again; what was cut off or failed is, and a row that asks for another thing."""
    path, kept = table(f"plain,{WEIGHTS},{PLAIN},32", "reads,112,110592,32"), tmp_path / "kept.jsonl"
    first = count_again(path, kept=kept)
    whole = kept.read_text().splitlines()
    kept.write_text(whole[0] + "\n" + whole[1][:40])
    measured = []
    take = running._measure_all

    def note(plans: Any, **keywords: Any) -> Any:
        measured.append([plan.name for plan in plans.values()])
        return take(plans, **keywords)

    monkeypatch.setattr(running, "_measure_all", note)
    told: list[int] = []
    assert count_again(path, kept=kept, advance=told.append).rows == first.rows
    cut = json.loads(whole[1])["plan"]["name"]
    assert measured[0] == [cut]
    assert told == [1]
    failed = json.loads(whole[1]) | {"found": {"name": cut, "error": "it needs a package"}}
    kept.write_text(whole[0] + "\n" + json.dumps(failed) + "\n")
    assert count_again(path, kept=kept).rows == first.rows
    assert measured.pop(0) == [cut]
    count_again(table(f"plain,{WEIGHTS},{PLAIN},16", "reads,112,110592,32"), kept=kept)
    assert [names for names in measured if names] == [[cut], ["plain"], ["plain"]]  # counted, and fvcore asked


@pytest.mark.usefixtures("here")
def test_columns_units_and_arguments(table: Any) -> None:
    """Columns are known by their headings or mapped; units come from the numbers; arguments go to the factory."""
    mapping = ["Net=name", "weights (k)=params", "GFLOPs x1000=macs", "side=input"]
    path = table("plain,0.224,0.44,32", heading="Net,weights (k),GFLOPs x1000,side")
    result = count_again(path, *mapping, settings={"width": 8})
    assert result.units == {"params": "K params", "macs": "M FLOPs, two for each MAC"}
    assert [row.verdict for row in result.rows] == ["equal"]
    (row,) = read_claims(table("plain,0.448,0.88,32", heading="Model,#Params (M),FLOPs (B),img_size"))
    assert (row.name, row.input, {name: claim.text for name, claim in row.claims.items()}) == (
        "plain", "32", {"params": "0.448", "macs": "0.88"},
    )  # fmt: skip
    assert read_claims(table("plain\t1,448", heading="model\tparams"))[0].claims["params"].value == 1448
    path = table("plain,0.448,0.88,32,16", heading="Net,weights (k),GFLOPs x1000,side,channels")
    result = count_again(path, *mapping, "channels=width")
    assert [row.verdict for row in result.rows] == ["equal"]


@pytest.mark.parametrize(
    ("text", "amount", "equal"),
    [
        ("1.82", 1_824_999_999, True),
        ("1.82", 1_825_100_000, False),
        ("1.820", 1_820_600_000, False),
        ("2", 2_400_000_000, True),
        ("2", 2_600_000_000, False),
        ("1,234.5", 1_234_540_000_000, True),
    ],
)
def test_figures_compare_at_their_digits(text: str, amount: int, equal: bool) -> None:
    """A published number stands for all that round to it."""
    assert Claim(text).holds(amount, Unit("G")) is equal


@pytest.mark.parametrize(
    ("numbers", "unit"),
    [
        ((1.5, 4.1, 0.3), "G MACs"),
        ((3.0, 8.2, 0.6), "G FLOPs, two for each MAC"),
        ((1500, 4100, 300), "M MACs"),
        ((1.397, 3.818, 0.279), "Gi MACs"),
    ],
)
def test_units_are_told_apart(numbers: tuple[float, ...], unit: str) -> None:
    """1000 from 1024, and MACs from FLOPs, though most rows deviate a little."""
    pairs = [(Claim(str(number)), amount) for number, amount in zip(numbers, (1_497e6, 4_111e6, 298e6), strict=True)]
    assert find_unit("macs", [(claim, int(amount)) for claim, amount in pairs]).name("macs") == unit


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n1,2\n", "say which column holds the model's name"),
        ("model,macs\n", "has a heading and no rows"),
        ("model,macs\nresnet,fast\n", "line 2: macs is 'fast', not a number"),
        ("model,macs\nresnet,NaN\n", "line 2: macs is 'NaN', not a number"),
        ("model,macs\nresnet,1,234\n", "line 2: more cells than the heading has"),
    ],
)
def test_a_file_that_is_no_table(text: str, sentence: str, tmp_path: Path) -> None:
    """One sentence, with the line."""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FileError, match=sentence):
        read_claims(tmp_path / "t.csv")


def test_a_mapping_that_does_not_fit(tmp_path: Path) -> None:
    """The columns that there are, and what they may say."""
    (tmp_path / "t.csv").write_text("model,macs\nresnet,1\n")
    with pytest.raises(UsageError, match="--map is column=field, with one of model, macs"):
        read_claims(tmp_path / "t.csv", ["nets=name"])


@pytest.mark.usefixtures("here")
def test_it_reads_at_eighty_columns(table: Any, print_plain: Any) -> None:
    """Summary first, then what deviates most; Markdown and CSV hold every row."""
    result = count_again(table(f"plain,{WEIGHTS},{PLAIN},32", "reads,999,1,32"))
    text = print_plain(render_recount(result))
    assert text.startswith("table.csv: 2 rows, params in params, macs in MACs: 1 equal at the digits")
    assert max(map(len, text.splitlines())) <= 80
    assert "reads" in text
    assert recount_markdown(result).count("\n| ") == 4
    assert recount_csv(result).splitlines()[1].startswith("3,reads,32,112,110592,")


@pytest.mark.usefixtures("here")
def test_the_command(table: Any, tmp_path: Path) -> None:
    """It prints the summary, keeps what it counted, and fails with --strict-claims where a figure is not explained."""
    path = table(f"plain,{WEIGHTS},{PLAIN},32", "reads,999,1,32")
    command = ["audit", "--claims", str(path), "--factory", FACTORY]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0
    assert "1 equal at the digits published; 1 open" in " ".join(shown.stdout.split())
    assert len((tmp_path / "table.recount.jsonl").read_text().splitlines()) == 3  # the open row was asked of fvcore too
    strict = CliRunner().invoke(app, [*command, "--strict-claims", "--format", "csv"])
    assert strict.exit_code == 1
    assert strict.stdout.startswith("line,name,input,params,macs")
    record = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(record.stdout)["summary"] == {"equal": 1, "open": 1}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--claims", "t.csv"], "--claims needs --factory"),
        (["--claims", "t.csv", "--factory", "a:b", "--format", "junit"], "table, json, markdown or csv"),
        (["--claims", "none.csv", "--factory", "a:b"], "none.csv"),
        (["--claims", "t.csv", "--factory", "a:b", "--input", "64"], "--claims counts a table: --input is for a model"),
        (["--claims", "t.csv", "--factory", "a:b", "--pin", "p", "--budget", "b"], "--budget, --pin is for a model"),
        ([], "name a model"),
    ],
)
def test_the_command_refuses(words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One sentence each."""
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(app, ["audit", *words])
    assert isinstance(refused.exception, FeatherpressError)
    assert sentence in str(refused.exception)
