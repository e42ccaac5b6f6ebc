"""Sweeps over budgets: students within them, teachers trained once, interrupted and resumed, gated and reported."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherpress.commands import training
from featherpress.compress.data.leaks import Leaks
from featherpress.compress.evaluation.metrics.accuracy import ClassPredictions
from featherpress.compress.experiments import distill
from featherpress.compress.experiments import sweep as sweeping
from featherpress.compress.recipes import Recipe
from featherpress.errors import TrainingError
from featherpress.records.sweep import Sweep
from featherpress.reports import write_report
from featherpress.verdicts import Scores, score_interval

Run = Callable[..., Any]
SWEEP = ("sweep", "tiny.toml", "--knob", "width=2:20", "--no-preflight", "--out", "curve")


@pytest.fixture
def sweep(tiny: Callable[..., Recipe], run_command: Run) -> Run:
    """Sweep the tiny recipe."""
    return lambda *words: run_command(*SWEEP, *words)


def test_students_keep_their_budgets_and_share_a_teacher(
    sweep: Run, run_command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each budget is a run of its own, with one teacher, trained by the first; scores are those of the runs."""
    looked: list[Any] = []
    monkeypatch.setattr(distill, "find_leaks", lambda *splits: looked.append(splits) or Leaks())
    ending = sweep("--params", "1K,500")
    assert ending.code == 0, ending.err
    assert len(looked) == 1, "all budgets have the same images"
    record = Sweep.load(Path("curve/sweep.json"))
    assert (record.limits, record.made_by, record.left) == ((500, 1000), "fit", ())
    assert [(point.budget, point.settings, point.params) for point in record.points] == [
        (500, {"width": 4}, 483),
        (1000, {"width": 6}, 831),
    ]
    assert [path.parent.name for path in Path("curve").glob("*/teacher")] == ["params-500"]
    scores = [json.loads((run / "eval" / "teacher.json").read_text())["score"] for run in Path("curve").glob("params*")]
    assert len(set(scores)) == 1
    for point in record.points:
        run = Path("curve") / point.folder
        assert json.loads((run / "budget.json").read_text())["student"]["total"]["params"] == point.params
        comparison = json.loads((run / "eval" / "comparison.json").read_text())
        assert list(point.student.scores) == comparison["distilled"]["scores"]
        assert point.control is not None
        assert list(point.control.scores) == comparison["control"]["scores"]
        assert run_command("report", run).code == 0
    found = score_interval(Scores.of([[0.0, 1.0] * 8, [1.0, 1.0] * 8]))
    assert found.low < 0.0
    assert found.high > 1.0
    monkeypatch.setattr(sweeping, "score_interval", lambda scores: found)
    point = sweeping.measure_point(run, name="a", budget=500, made_by="fit", settings={})
    for shown in (point.score, point.control_score):
        assert shown is not None
        assert (shown.low, shown.high) == (0.0, 1.0)
    read = sweeping.read_saved
    monkeypatch.setattr(sweeping, "read_saved", lambda *path, **order: replace(read(*path, **order), bounded=False))
    point = sweeping.measure_point(run, name="a", budget=500, made_by="fit", settings={})
    assert (point.score.low, point.score.high) == (found.low, found.high)


def test_an_interrupted_sweep_goes_on(sweep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done is kept as it is, what was begun is gone on with, and further budgets may be given."""
    whole = training.prepare_distillation

    def stop(recipe: Recipe, *arguments: Any, **options: Any) -> Any:
        if "1000" in recipe.name:
            raise TrainingError("stopped")
        return whole(recipe, *arguments, **options)

    monkeypatch.setattr("featherpress.commands.sweeping.prepare_distillation", stop)
    assert sweep("--params", "500,1000").code == 2
    assert Sweep.load(Path("curve/sweep.json")).left == (1000,)
    first = Path("curve/params-500/weights/last.safetensors")
    before = first.stat().st_mtime_ns
    monkeypatch.setattr("featherpress.commands.sweeping.prepare_distillation", whole)
    assert sweep("--params", "500").code == 2, "a sweep that is there is not begun again"
    assert sweep("--resume", "--macs", "500").code == 2
    assert sweep("--resume", "--params", "2K,300").code == 0
    record = Sweep.load(Path("curve/sweep.json"))
    assert [point.budget for point in record.points] == [300, 500, 1000, 2000]
    assert [path.parent.name for path in Path("curve").glob("*/teacher")] == ["params-500"]
    assert first.stat().st_mtime_ns == before
    assert tomllib.loads(Path("curve/params-2000/recipe.toml").read_text())["teacher"]["weights"]


def test_budgets_that_differ_otherwise_are_named(sweep: Run, tmp_path: Path) -> None:
    """A sweep goes on with what it began with; a budget that is done is held against it, like one that is not."""
    epochs = ("--set", "schedule.epochs=2")
    assert sweep("--params", "500", *epochs).code == 0
    assert sweep("--params", "500", "--resume").code == 0, "settings outlive a resume"
    recipe = (tmp_path / "tiny.toml").read_text()
    (tmp_path / "tiny.toml").write_text(recipe.replace('loss = "kl"', 'loss = "kl"\nweight = 3.0'))
    refused = sweep("--params", "500,1K", "--resume")
    assert (refused.code, "losses.logits.weight was 1.0 and is 3.0" in refused.err) == (2, True), refused.err
    (tmp_path / "tiny.toml").write_text(recipe)
    refused = sweep("--params", "500,1K", "--resume", "--set", "schedule.epochs=3")
    assert (refused.code, "schedule.epochs was 2 and is 3" in refused.err) == (2, True), refused.err
    assert Sweep.load(Path("curve/sweep.json")).settings == ("schedule.epochs=2",)
    assert not Path("curve/params-1000/weights").exists()
    allowed = sweep("--params", "500,1K", "--resume", "--allow-changed", "--set", "schedule.epochs=3")
    assert allowed.code == 0, allowed.err
    comparison = json.loads(Path("curve/params-500/eval/comparison.json").read_text())
    assert comparison["changed"] == ["schedule.epochs was 2 and is 3"]
    assert tomllib.loads(Path("curve/recipe.toml").read_text())["schedule"]["epochs"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--params 128K,256K"),
        (("--params", "500", "--macs", "500"), "one of the two"),
        (("--params", "100,500"), "no settings of tiny_models:net come to 100 parameters: 207 is the nearest"),
        (("--params", "500,501"), "500 and 501 come to the same student of 483 parameters"),
        (("--params", "500", "--set", "teacher={}"), "teacher"),
    ],
)
def test_what_cannot_be_swept_is_one_sentence(sweep: Run, words: tuple[str, ...], said: str) -> None:
    ending = sweep(*words)
    assert (ending.code, ending.err.count("\n")) == (2, 1)
    assert said in ending.err
    assert not Path("curve").exists()


def test_a_dry_run_says_what_each_student_is(sweep: Run) -> None:
    ending = sweep("--macs", "100K,200K", "--dry-run", "--set", "seeds=[0,1,2]")
    assert ending.code == 0
    assert "trainings: 12 (2 budgets, 2 arms: student, control; 3 seeds) of 3 steps each" in ending.out
    assert "before them a teacher, once, of 3 steps" in ending.out
    assert "width 5     648  99.61 k     385" in ending.out
    limits = 'model = "tiny"\ninput = [1, 3, 64, 64]\n[total]\nparams = { max = 900 }\nmacs = { target = 120_000 }\n'
    Path("mine.toml").write_text(limits)
    held = sweep("--macs", "100K", "--dry-run", "--set", "budget=mine.toml")
    assert "the budget mine.toml allows 120,000 MACs" in held.out, held.err
    assert not Path("curve").exists()


READING = """
from torch import Tensor, nn
from tiny_models import net as whole


class Reading(nn.Sequential):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * float(self[0][0].weight.detach().sum() > -1e9))


def net(*, width: int = 8, classes: int = 3) -> nn.Module:
    return Reading(*whole(width=width, classes=classes))
"""


def test_a_model_that_reads_its_weights_is_fitted_too(sweep: Run, tmp_path: Path) -> None:
    """Such a one is counted with memory, which candidates are first built without."""
    (tmp_path / "reading_models.py").write_text(READING)
    ending = sweep("--macs", "100K", "--dry-run", "--set", "student.model=reading_models:net")
    assert ending.code == 0, ending.err
    assert "width 5     648" in ending.out


@pytest.fixture
def curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of three seeds whose students are as good as their teacher, a little worse, and much worse."""
    monkeypatch.chdir(tmp_path)
    wrong = {4000: 0, 2000: 30, 1000: 120}
    points = []
    for budget, misses in sorted(wrong.items()):
        run = tmp_path / "curve" / f"params-{budget}"
        for seed in ("", "seed-1", "seed-2"):
            _predict(run / seed / "eval" / "validation.npz", misses)
        _predict(run / "eval" / "teacher.npz", 0)
        (run / "eval" / "teacher.json").write_text("{}")
        interval = {"low": -misses / 300 - 0.01, "high": -misses / 300 + 0.01, "confidence": 0.95, "resamples": 2000}
        interval |= {"method": "t", "covers": ["seeds", "examples"], "seeds": 3, "examples": 300}
        score = 1 - misses / 300
        points.append(
            {
                "budget": budget,
                "folder": run.name,
                "made_by": "fit",
                "settings": {"width": budget // 500},
                "params": budget - 7,
                "macs": 10 * budget,
                "student": {"scores": [score] * 3, "mean": score, "std": 0.0},
                "score": interval | {"mean": score, "low": score - 0.01, "high": score + 0.01},
                "beside_teacher": interval | {"mean": -misses / 300},
            }
        )
    record = {
        "schema": "featherpress.sweep/1",
        "recipe": "tiny",
        "model": "tiny_models:net",
        "quantity": "params",
        "made_by": "fit",
        "limits": [1000, 2000, 4000, 9000],
        "seeds": [0, 1, 2],
        "target": {"budget": "mine.toml", "amount": 2500},
        "metric": {"key": "accuracy", "name": "accuracy"},
        "teacher": {"model": "big:net", "score": 1.0, "params": 90_000, "macs": 900_000},
        "points": points,
    }
    (tmp_path / "curve" / "sweep.json").write_text(json.dumps(record))
    return tmp_path / "curve"


def _predict(file: Path, misses: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros(300, np.int64)
    predicted = np.r_[np.ones(misses, np.int64), np.zeros(300 - misses, np.int64)]
    names = tuple(f"{number}.png" for number in range(300))
    ClassPredictions(names=names, labels=labels, predicted=predicted).save(file)


@pytest.mark.parametrize(
    ("margin", "code", "sentence"),
    [
        (
            "0.05",
            1,
            "Down to 4,000 parameters no student is worse than the teacher by more than 0.05; from 2,000 on down the "
            "loss is more than that.",
        ),
        (
            "0.1",
            1,
            "Down to 4,000 parameters no student is worse than the teacher by more than 0.1; undecided at 2,000; from "
            "1,000 on down the loss is more than that.",
        ),
        ("0.5", 0, "Down to 1,000 parameters no student is worse than the teacher by more than 0.5."),
    ],
)
def test_the_gate_says_from_which_budget_on(
    curve: Path, run_command: Run, margin: str, code: int, sentence: str
) -> None:
    ending = run_command("gate", curve, "--margin", margin)
    assert ending.code == code
    assert ending.out.splitlines()[-1] == sentence
    assert len(ending.out.splitlines()) == 4
    found = json.loads(run_command("gate", curve, "--margin", margin, "--format", "json").out)
    assert (found["sentence"], len(found["budgets"])) == (sentence, 3)
    assert sentence in run_command("gate", curve, "--margin", margin, "--format", "markdown").out
    worse, open_ = (sum(each["outcome"] == what for each in found["budgets"]) for what in ("worse", "undecided"))
    for words, failures, skipped in (
        ((), worse + open_, 0),
        (("--undecided", "fail"), worse + open_, 0),
        (("--undecided", "pass"), worse, open_),
    ):
        junit = run_command("gate", curve, "--margin", margin, "--format", "junit", *words).out
        assert f'failures="{failures}" errors="0" skipped="{skipped}"' in junit


def test_a_sweep_is_gated_against_another_baseline_too(curve: Path, run_command: Run) -> None:
    """A run in the teacher's place; and only a sweep brings a baseline of its own."""
    ending = run_command("gate", curve, "--baseline", curve / "params-1000", "--margin", "0.01")
    assert (ending.code, "no student is worse than" in ending.out) == (0, True)
    ending = run_command("gate", curve / "params-1000", "--margin", "0.01")
    assert (ending.code, "--baseline" in ending.err) == (2, True)


def test_a_report_has_the_curve(curve: Path) -> None:
    """A row a budget and the teacher's, what is not done, the figure, and the commands to go on with."""
    written = write_report([curve])
    assert written == curve / "report" / "report.md"
    text = written.read_text(encoding="utf-8")
    assert text.startswith("# What each budget costs: `tiny_models:net`")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [row.split("|")[3].strip() for row in rows[2:]] == ["993", "1,993", "3,993", "90,000"]
    assert "[0.590, 0.610]" in rows[2]
    assert "\N{MINUS SIGN}0.400" in rows[2]
    assert "Not done yet: 9,000." in text
    assert "what the budget `mine.toml` allows" in text
    assert "featherpress gate" in text
    assert (curve / "report" / "figures" / "curve-0.png").stat().st_size > 10_000
