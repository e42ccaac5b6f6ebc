"""The report: its text against a golden file, its sums, its verdicts, and what it says is missing."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from featherpress.errors import FileError, UsageError
from featherpress.reports import write_report
from featherpress.reports.formats import DASH, MINUS

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
FIGURES = {
    "costs",
    "waterfall",
    "differences",
    "training",
    "correlation",
    "precision_recall",
    "ap_by_height",
    "gallery",
}


undrawn_only = pytest.mark.usefixtures("undrawn")


def section(text: str, title: str) -> str:
    """Return the text below a heading that begins with `title`, up to the next heading."""
    found = re.search(rf"^#+ {re.escape(title)}.*?\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the first table in a text, without its heading and its emphasis."""
    lines = re.search(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert lines is not None
    return [[cell.strip().strip("*") for cell in line.strip("| ").split(" | ")] for line in lines[0].splitlines()[2:]]


def number(cell: str) -> int:
    """Return a printed whole number."""
    return int(cell.replace(",", "").replace(MINUS, "-"))


@undrawn_only
def test_markdown_is_the_golden_file(run_dir: Path, golden: Callable[[str, str], None]) -> None:
    """A complete run of two seeds gives exactly the agreed text."""
    golden("report.md", write_report([run_dir]).read_text(encoding="utf-8"))


@undrawn_only
def test_a_report_replaces_reports_alone(run_dir: Path, tmp_path: Path) -> None:
    """Reports are written again over themselves, beside other files; a text or a figure of no report is refused."""
    for name in ("report.md", "report.html", "tables.tex", "figures/costs.png"):
        file = tmp_path / Path(name).suffix[1:] / name
        file.parent.mkdir(parents=True)
        file.write_text("a person's own")
        out = file.parents[1] if file.parent.name == "figures" else file.parent
        with pytest.raises(UsageError, match="is of no report, so that it is not replaced; choose"):
            write_report([run_dir], out, page=True, latex=True)
        assert [*(path for path in out.rglob("*") if path.is_file())] == [file]
        assert file.read_text() == "a person's own"
    out = tmp_path / "again"
    out.mkdir()
    (out / "notes.md").write_text("a person's own")
    for _ in range(2):
        write_report([run_dir], out, page=True, latex=True)
    assert (out / "notes.md").read_text() == "a person's own"


@undrawn_only
def test_two_runs_are_set_side_by_side(run_dir: Path, one_seed: Path, golden: Callable[[str, str], None]) -> None:
    """Several runs give one table, a context each, and figures that do not overwrite one another."""
    file = write_report([run_dir, one_seed], Path("both"))
    text = file.read_text(encoding="utf-8")
    golden("report_two_runs.md", text)
    named = re.findall(r'src="figures/([^"]+)"', text)
    assert len(named) == len(set(named)) == 2 * len(FIGURES)
    assert {path.name for path in (file.parent / "figures").iterdir()} == set(named)


@undrawn_only
def test_component_rows_sum_to_the_printed_totals(run_dir: Path) -> None:
    """Parameters and MACs of both models, re-added from the text, are the totals below them."""
    text = write_report([run_dir]).read_text(encoding="utf-8")
    *parts, total = rows(section(text, "`featherface_v1` against"))
    assert (total[1], total[2]) == ("485,599", "256,812")
    for column in (1, 2, 4, 5):
        assert sum(number(row[column]) for row in parts) == number(total[column])


@undrawn_only
def test_changes_follow_from_the_printed_counts(run_dir: Path) -> None:
    """Every percentage is what its own row gives: less is negative, more positive, and nothing of both a dash."""
    text = write_report([run_dir]).read_text(encoding="utf-8")
    for row in rows(section(text, "`featherface_v1` against")):
        for before, after, printed in (row[1:4], row[4:7]):
            a, b = number(before), number(after)
            none, some = ("0.0 %", f"{100 * (b - a) / (a or 1):+.1f} %".replace("-", MINUS))
            assert printed == (("new" if b else DASH) if a == 0 else none if a == b else some)


@undrawn_only
def test_budget_and_claim_differences_add_up(run_dir: Path) -> None:
    """Target plus difference is the count, and claimed plus difference is what was measured."""
    text = write_report([run_dir]).read_text(encoding="utf-8")
    checks = rows(section(text, "Budgets"))
    assert len(checks) == 2 * (7 + 2)
    for row in checks:
        assert DASH in row[4:6] or number(row[3]) == number(row[4]) + number(row[5])
    claims = rows(section(text, "Claims checked"))
    assert len(claims) == 4
    for row in claims:
        assert number(row[4]) == number(row[3]) + number(row[5])


@undrawn_only
def test_faces_by_height_sum_to_all_faces(run_dir: Path, edit: Edit) -> None:
    """The buckets hold all faces; where they do not, the report says how many."""
    text = write_report([run_dir]).read_text(encoding="utf-8")
    everything, *heights = rows(section(text, "Accuracy"))
    assert number(everything[1]) == sum(number(row[1]) for row in heights) == 500
    edit(run_dir / "eval/teacher.json", lambda record: record["by_height"].pop())
    text = write_report([run_dir]).read_text(encoding="utf-8")
    assert "The heights hold 459 of 500 faces." in text


@undrawn_only
@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.0002, 0.04, "better"), (-0.04, -0.0002, "worse"), (-0.0002, 0.04, "not shown"), (0.0, 0.04, "not shown")],
)
def test_verdict_rests_on_the_exact_interval(
    run_dir: Path, compared: Callable[[Path, float, float], None], low: float, high: float, verdict: str
) -> None:
    """The verdict is that of the unrounded limits, and a limit that is not 0 is never printed as 0."""
    compared(run_dir, low, high)
    told = section(write_report([run_dir]).read_text(encoding="utf-8"), "Did distillation help?")
    assert f"**{verdict}**" in told
    assert ("[0.000," in told) == (low == 0)
    assert not re.search(r"[+\N{MINUS SIGN}]0\.0+[,\]]", told)
    assert (f"{MINUS}0.0002" in told or "+0.0002" in told) == (low != 0)


@undrawn_only
def test_verdict_that_contradicts_its_interval_is_refused(
    run_dir: Path, edit: Edit, compared: Callable[[Path, float, float], None]
) -> None:
    """A record that calls a difference better while its interval holds 0 is an error, not a headline."""
    compared(run_dir, 0.01, 0.04)
    edit(run_dir / "eval/comparison.json", lambda record: record["difference"].update(low=-0.01))
    with pytest.raises(FileError, match=r"comparison\.json: expected the verdict 'not shown'"):
        write_report([run_dir])


@undrawn_only
def test_a_verdict_over_too_few_seeds_is_refused(run_dir: Path, edit: Edit) -> None:
    """Two seeds, or an interval over images alone, allow none about distillation."""
    edit(run_dir / "eval/comparison.json", lambda record: record.update(verdict="better"))
    with pytest.raises(FileError, match=r"comparison\.json: expected the verdict 'undecided'"):
        write_report([run_dir])


@undrawn_only
def test_placebos_and_what_remains_are_rows(
    run_dir: Path, edit: Edit, compared: Callable[[Path, float, float], None]
) -> None:
    """The further arms with steps and verdicts, the sentence on knowledge, and warnings about leaks and steps."""
    compared(run_dir, 0.01, 0.04)

    def add(record: dict[str, Any]) -> None:
        arm = {"ap": [0.57, 0.58, 0.59], "mean": 0.58, "std": 0.01}
        other = {"name": "shuffled", "scores": arm, "steps": [48] * 3, "verdict": "not shown", "p": 0.3}
        record["others"] = [other | {"difference": record["difference"]}]
        record["knowledge"] = {
            "placebo": "shuffled",
            "difference": record["difference"],
            "verdict": "better",
            "sentence": "The teacher's knowledge, beyond shuffled, raised AP by 0.020.",
        }
        record |= {"leak": {"same": 2, "near": 0}, "steps": {"control": [48] * 3, "distilled": [96] * 3}}

    edit(run_dir / "eval/comparison.json", add)
    told = section(write_report([run_dir]).read_text(encoding="utf-8"), "Did distillation help?")
    assert re.search(r"`shuffled`\s*\|\s*48\s*\|\s*0\.580 ± 0\.010\s*\|.*\| not shown\s*\|", told)
    assert "by Holm" in told
    assert "The teacher's knowledge, beyond shuffled, raised AP by 0.020." in told
    assert "2 validation images were training images too" in told
    assert "different numbers of steps" in told


@undrawn_only
def test_one_seed_is_warned_about(run_dir: Path, one_seed: Path) -> None:
    """One seed brings a warning and no deviation; several bring neither dash nor warning."""
    one = write_report([one_seed]).read_text(encoding="utf-8")
    assert "not how much another seed would change" in one
    assert all(row[-1] == DASH for row in rows(section(one, "Did distillation help?")))
    two = write_report([run_dir]).read_text(encoding="utf-8")
    assert "not how much another seed would change" not in two
    assert all(row[-1] != DASH for row in rows(section(two, "Did distillation help?")))


@undrawn_only
@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("budget.json", "`budget.json` is missing"),
        ("environment.json", "`environment.json` is missing"),
        ("recipe.toml", "`recipe.toml` is missing"),
        ("eval/comparison.json", "`eval/comparison.json` is missing"),
        ("eval/teacher.json", "Missing, so without numbers here: `eval/teacher.json`."),
        ("eval/gallery", "`eval/gallery/` is missing"),
        ("eval/correlation.json", "`eval/correlation.json` is missing"),
        ("control", "Missing, so without numbers here: `control/eval/validation.json`."),
        ("metrics.csv", "Missing, so not drawn: `metrics.csv`."),
    ],
)
def test_missing_pieces_are_said_to_be_missing(one_seed: Path, gone: str, said: str) -> None:
    """Any single piece may be absent: the report says so and still gives the rest."""
    path = one_seed / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = write_report([one_seed]).read_text(encoding="utf-8")
    assert said in text
    assert "## Detections" in text


@undrawn_only
def test_training_without_a_teacher_is_reported(trained: Path) -> None:
    """A plain training gives its accuracy and its curves, and claims nothing about distillation."""
    text = write_report([trained]).read_text(encoding="utf-8")
    assert text.startswith("# Training `featherface_v2`")
    assert "nothing to compare" in text
    assert "Did distillation help?" not in text
    assert "teacher" not in section(text, "Accuracy")
    assert {path.stem for path in (trained / "report/figures").iterdir()} == {
        "training",
        "precision_recall",
        "ap_by_height",
    }


@undrawn_only
@pytest.mark.parametrize(("recipe", "said"), [("[schedule]\nevaluate_images = 30\n", True), ("broken =", False)])
def test_scores_between_epochs_say_on_how_many_images(one_seed: Path, recipe: str, said: bool) -> None:
    """They are not the final ones, which are of all images; a recipe that cannot be read says nothing of it."""
    (one_seed / "recipe.toml").write_text(recipe, encoding="utf-8")
    text = write_report([one_seed]).read_text(encoding="utf-8")
    assert ("Between epochs AP is that of up to 30 images." in section(text, "Training")) == said


@undrawn_only
def test_bucket_without_a_face_is_a_dash(one_seed: Path, edit: Edit) -> None:
    """An AP that does not exist is printed as a dash with its reason."""

    def empty(record: dict[str, Any]) -> None:
        record["by_height"][3].update(faces=0, ap=None)
        record["data"]["faces"] = 459

    for name in ("eval/teacher.json", "eval/validation.json", "control/eval/validation.json"):
        edit(one_seed / name, empty)
    told = section(write_report([one_seed]).read_text(encoding="utf-8"), "Accuracy")
    assert rows(told)[-1] == ["> 96 px", "0", DASH, DASH, DASH]
    assert "no face has this height" in told


@undrawn_only
def test_evaluated_model_that_was_not_counted_is_warned_about(one_seed: Path, edit: Edit) -> None:
    """Accuracy of one model beside the cost of another is not passed over."""
    edit(one_seed / "eval/teacher.json", lambda record: record.update(params=489_015, model="featherface_v1_ssh_plain"))
    text = write_report([one_seed]).read_text(encoding="utf-8")
    assert "evaluated, `featherface_v1_ssh_plain`, has 489,015." in text


@undrawn_only
def test_different_protocols_are_warned_about(one_seed: Path, edit: Edit) -> None:
    """Numbers of two test scales are not set side by side without a warning."""
    edit(
        one_seed / "control/eval/validation.json", lambda record: record["protocol"].update(test_scale="long side 640")
    )
    text = write_report([one_seed]).read_text(encoding="utf-8")
    assert "not evaluated on the same data by the same protocol" in text
    protocols = section(text, "Data and protocol").partition("match IoU")[2]
    assert re.findall(r"^\| (\w[\w, ]*?) +\|", protocols, re.MULTILINE) == ["teacher, student", "control"]


@undrawn_only
def test_broken_budget_is_told(one_seed: Path, edit: Edit) -> None:
    """A model over its budget has its verdict and its failure in the report."""

    def break_it(record: dict[str, Any]) -> None:
        record["student"].update(verdict="over", failures=["total has 256,812 params, 812 above the limit of 256,000"])
        record["student"]["total"]["checks"][0].update(verdict="over", low=None, high=256_000)

    edit(one_seed / "budget.json", break_it)
    told = section(write_report([one_seed]).read_text(encoding="utf-8"), "Budgets")
    assert "`featherface_v2` **over**" in told
    assert "> total has 256,812 params, 812 above the limit of 256,000." in told
    of_v2 = [row for row in rows(told) if row[0] == "`featherface_v2`"]
    assert of_v2[0][-2:] == ["at most 256,000", "over"]
    assert all(row[-1] == "within" for row in of_v2[1:])


@undrawn_only
def test_sections_come_in_the_agreed_order(run_dir: Path) -> None:
    """The reader meets costs, then accuracy, then the verdict, then where it all comes from."""
    text = write_report([run_dir]).read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == [
        "Where the parameters went",
        "`featherface_v1` against `featherface_v2`",
        "Architecture",
        "Budgets",
        "Claims checked",
        "Accuracy",
        "Did distillation help?",
        "Training",
        "How far the student's features follow the teacher's",
        "Precision, recall and face height",
        "Detections",
        "Environment",
        "Reproduce it",
        "Data and protocol",
    ]


def test_figures_open_at_their_size(one_seed: Path) -> None:
    """Every PNG is whole and 700 or 1,400 pixels wide, one column of a paper or both, as the Markdown says."""
    file = write_report([one_seed])
    folder = file.parent / "figures"
    told = dict(re.findall(r'figures/(\w+)\.png" alt="[^"]*" width="(\d+)"', file.read_text(encoding="utf-8")))
    widths = {}
    for file in folder.iterdir():
        with Image.open(file) as image:
            image.load()
            assert image.format == "PNG"
            assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
            widths[file.stem] = image.width
    assert widths == {name: 1400 if name == "gallery" else 700 for name in FIGURES}
    assert {name: int(width) * 200 // 120 for name, width in told.items()} == widths


@undrawn_only
def test_every_shown_figure_was_written(run_dir: Path) -> None:
    """The Markdown links the figures that lie beside it, and no others."""
    file = write_report([run_dir])
    linked = re.findall(r'src="(figures/[^"]+)"', file.read_text(encoding="utf-8"))
    assert sorted(linked) == sorted(str(path.relative_to(file.parent)) for path in (file.parent / "figures").iterdir())


@undrawn_only
def test_interruption_leaves_the_old_report(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that stops while it draws changes nothing and leaves no temporary folder."""
    file = write_report([run_dir])
    before = {path: path.read_bytes() for path in sorted(file.parent.rglob("*.*"))}
    drawn: list[Path] = []

    def stop_at_third(_draw: object, files: list[Path]) -> None:
        drawn.extend(files)
        files[0].write_bytes(b"half")
        if len(drawn) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("featherpress.reports.report.render", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        write_report([run_dir])
    assert {path: path.read_bytes() for path in sorted(file.parent.rglob("*.*"))} == before
    assert not [path.name for path in run_dir.iterdir() if path.name.startswith(".")]


def test_no_run_is_a_usage_error() -> None:
    """Naming no run is the caller's mistake."""
    with pytest.raises(UsageError, match="at least one run directory"):
        write_report([])


def test_torch_is_never_imported(run_dir: Path) -> None:
    """Writing a report imports neither torch nor the packages that need it, nor pyplot's global state."""
    code = (
        "import sys; from pathlib import Path; from featherpress.reports import write_report; "
        "import featherpress.reports.report as module; "
        "module.render = lambda draw, files: [draw(), *(file.touch() for file in files)]; "
        f"write_report([Path({str(run_dir)!r})], page=True, latex=True); "
        "print([m for m in sys.modules if m in ('torch', 'matplotlib.pyplot', 'featherpress.models', "
        "'featherpress.compress', 'featherpress.budgets')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_audits_of_different_inputs_are_not_compared(tmp_path: Path, run_dir: Path) -> None:
    """Two counts at different sizes are refused in a sentence that names both: their ratio would say nothing."""
    audits = json.loads((run_dir / "budget.json").read_text())
    for role, side in (("teacher", 640), ("student", 64)):
        (tmp_path / f"{role}.json").write_text(json.dumps(audits[role] | {"input": [1, 3, side, side]}))
    with pytest.raises(UsageError, match="featherface_v1 at 1x3x640x640, featherface_v2 at 1x3x64x64"):
        write_report([tmp_path / "teacher.json", tmp_path / "student.json"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_figures_of_many_are_of_the_first(tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many audits are reported on in seconds: all their tables are there, and figures of the first, as is said."""
    monkeypatch.setattr("featherpress.reports.report.DRAWN", 1)
    audit = json.loads((run_dir / "budget.json").read_text())["student"]
    names = ("one", "two", "three", "four")
    for name in names:
        (tmp_path / f"{name}.json").write_text(json.dumps(audit | {"model": name}))
    text = write_report([tmp_path / f"{name}.json" for name in names], tmp_path / "out").read_text()
    assert "Figures are drawn of the first 1 alone" in text
    assert {path.name.split("-")[0] for path in (tmp_path / "out" / "figures").iterdir()} == {"1"}
    assert all(f"`{name}`" in text for name in names)
