"""Students that are pruned: cut once, started from alike, and built back for whatever comes after."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from featherpress.compress.experiments.build import build_student, build_trained, build_whole
from featherpress.compress.experiments.distill import distill
from featherpress.compress.experiments.preflight import preflight
from featherpress.compress.experiments.pruned import prune_student
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.tasks import task_of
from featherpress.errors import RecipeError, UsageError
from featherpress.models import save_weights
from featherpress.records.audit import Budget
from featherpress.records.pruning import Pruning
from featherpress.records.sweep import Sweep

Run = Callable[..., Any]
CUT = ("student.settings={width=12,classes=3}", "student.prune={params='500'}")
FROM_TEACHER = (*CUT, "student.weights=teacher")
OTHER = "teacher.settings={width=9,classes=3}"
ROOM = 500
HEAD = 'model = "tiny_models:net"\nconvention = "core-macs"\ninput = [1, 3, 64, 64]\n'


def words(settings: tuple[str, ...]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def size(path: Path) -> int:
    names = ("running_mean", "running_var", "num_batches_tracked")
    return sum(tensor.numel() for name, tensor in load_file(path).items() if not name.endswith(names))


@pytest.fixture
def ran(tiny: Callable[..., Recipe], run_command: Run) -> Run:
    """A distillation of a teacher into itself, cut to 500 parameters, of two seeds; and further commands on it."""
    ending = run_command("distill", "tiny.toml", "--out", "run", *words((*FROM_TEACHER, "seeds=[0,1]")))
    assert ending.code == 0, ending.err
    return run_command


def test_every_arm_starts_from_the_same_pruned_teacher(ran: Run) -> None:
    """One file for all seeds and arms, within its limit, counted for the record, its loss to the original said."""
    run = Path("run")
    recipe = load_recipe(run / "recipe.toml")
    task, start = task_of(recipe), load_file(run / "pruned.safetensors")
    for seed in recipe.seeds:
        for control in (False, True):
            student = build_student(recipe, seed, task=task, teachers=(), control=control, folder=run)
            assert all(torch.equal(value, start[name]) for name, value in student.state_dict().items())
    trained = [run / part / "weights" / "last.safetensors" for part in ("", "control", "seed-1", "seed-1/control")]
    assert {size(file) for file in (run / "pruned.safetensors", *trained)} == {size(trained[0])}
    assert 400 < size(trained[0]) <= ROOM
    budget, pruning = Budget.load(run / "budget.json"), Pruning.load(run / "pruning.json")
    assert budget.original is not None
    assert budget.student.total.params == pruning.after.params == size(trained[0])
    assert budget.original.total.params == pruning.before.params == 2_307
    assert pruning.limits == {"params": ROOM}
    assert any("output" in reason for reason in pruning.locked)


def test_a_run_cuts_once(tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the seed that weights are drawn from: another cut for another arm would be another student."""
    cuts = []

    def count(recipe: Recipe, model: Any) -> Any:
        cuts.append(model)
        return prune_student(recipe, model)

    for module in ("pruned", "build"):
        monkeypatch.setattr(f"featherpress.compress.experiments.{module}.prune_student", count)
    distill(tiny(*CUT, "seeds=[0,1]"), Path("run"))
    assert len(cuts) == 1


def test_what_is_pruned_is_the_teachers_weights(tiny: Callable[..., Recipe]) -> None:
    """All of them, before the cut; without a teacher that fits there is one sentence."""
    recipe = tiny(*FROM_TEACHER)
    task = task_of(recipe)
    teacher = task.build("tiny_models:net", {"width": 12, "classes": 3})
    other = task.build("tiny_models:net", {"width": 9, "classes": 3})
    whole = build_whole(recipe, task=task, teachers=[other, teacher])
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in whole.state_dict().items())
    with pytest.raises(UsageError, match="no teacher is the model that is to be pruned"):
        build_whole(recipe, task=task, teachers=[other])


def test_a_run_is_evaluated_exported_reported_and_resumed(ran: Run) -> None:
    """Whatever comes after builds the student back by its weights' file."""
    run, weights = Path("run"), Path("run/weights/last.safetensors")
    found = json.loads(ran("evaluate", "--recipe", run / "recipe.toml", "--weights", weights, "--json").out)
    assert found["score"] == json.loads((run / "eval" / "validation.json").read_text())["score"]
    assert found["params"] == size(weights)
    assert ran("report", run).code == 0
    text = (run / "report" / "report.md").read_text(encoding="utf-8")
    assert "## What was pruned" in text
    assert "at most 500 parameters" in text
    assert "The teacher is the original" in text
    assert "part of the output" in text
    assert not (run / "report" / "figures" / "pruned.png").exists()
    before = {file: file.stat().st_mtime_ns for file in (weights, run / "pruned.safetensors")}
    (run / "control" / "eval" / "validation.json").unlink()
    ending = ran("distill", "tiny.toml", "--out", "run", "--resume")
    assert ending.code == 0, ending.err
    assert before == {file: file.stat().st_mtime_ns for file in before}
    assert Budget.load(run / "budget.json").student.total.params == size(weights)


def test_a_run_goes_on_from_a_pruned_one(ran: Run, tiny: Callable[..., Recipe]) -> None:
    """The student from the student's shape and weights, the control from the control's."""
    recipe = tiny(CUT[0], "student.run=run")
    for control, folder in ((False, "run"), (True, "run/control")):
        model = build_student(recipe, 0, task=task_of(recipe), teachers=(), control=control)
        held = load_file(Path(folder) / "weights" / "last.safetensors")
        assert all(torch.equal(value, held[name]) for name, value in model.state_dict().items())


def test_a_student_may_be_pruned_already(tiny: Callable[..., Recipe], run_command: Run) -> None:
    """`pruned = FILE`: counted before anything is trained, and held to the budget."""
    given = ("tiny_models:net", "--set", "width=12", "--set", "classes=3", "--params", "500", "--input", "64")
    assert run_command("prune", *given, "--out", "small.safetensors").code == 0
    Path("tight.toml").write_text(HEAD + "[total]\nparams = { max = 400 }\n")
    own = words((CUT[0], "student.pruned=small.safetensors"))
    ending = run_command("distill", "tiny.toml", "--out", "run", *own, "--set", "budget=tight.toml")
    assert (ending.code, "breaks its budget" in ending.err) == (2, True)
    ending = run_command("distill", "tiny.toml", "--out", "run", *own)
    assert ending.code == 0, ending.err
    budget = Budget.load(Path("run/budget.json"))
    assert budget.student.total.params == size(Path("run/weights/last.safetensors")) <= ROOM
    assert run_command("report", "run").code == 0
    assert "## What was pruned" in Path("run/report/report.md").read_text(encoding="utf-8")


def test_a_recipes_budget_file_holds_too(tiny: Callable[..., Recipe], run_command: Run) -> None:
    """Its limits stand in for `params` and `macs`, component by component."""
    Path("mine.toml").write_text(
        HEAD + '[total]\nparams = { max = 900 }\n[components."0"]\nmodules = ["0"]\nparams = { max = 300 }\n'
    )
    ending = run_command(
        "train", "tiny.toml", "--out", "run", *words((CUT[0], "student.prune={}", "budget=mine.toml", OTHER))
    )
    assert ending.code == 0, ending.err
    student = Budget.load(Path("run/budget.json")).student
    assert student.total.params <= 900
    assert student.components[0].params <= 300
    assert student.verdict == "within"
    assert run_command("report", "run").code == 0
    text = Path("run/report/report.md").read_text(encoding="utf-8")
    assert "at most 300 0 parameters" in text
    assert f"From the original's 2,307 parameters to the pruned student's {student.total.params}" in text
    assert Path("run/report/figures/pruned.png").stat().st_size > 5_000


def test_a_dry_run_says_what_the_student_is_pruned_to(tiny: Callable[..., Recipe], run_command: Run) -> None:
    ending = run_command("distill", "tiny.toml", "--dry-run", *words(FROM_TEACHER))
    assert ending.code == 0, ending.err
    said = "# student: tiny_models:net, 2,307 parameters, 251.2 k MACs at 64x64; pruned to at most 500 parameters"
    assert said in ending.out.splitlines()
    assert tomllib.loads(ending.out)["student"]["prune"]["params"] == ROOM


def test_a_preflight_cuts_once_and_passes(tiny: Callable[..., Recipe]) -> None:
    assert [each.sentence for each in preflight(tiny(*FROM_TEACHER)) if not each.passed] == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((*CUT, "student.pruned=x.safetensors"), "give one of the two"),
        (("student.prune={keep=['1']}",), "needs `params` or `macs`, or a `budget`"),
        ((*CUT, "student.run=runs/old"), "starts every arm from the same weights"),
        (("student.weights=teacher",), "only to be pruned"),
        (("student.prune={params='1.5x'}",), "as 256812, 128K or 1.5M; got '1.5x'"),
        (("student.pruned=x", "student.weights=y"), "leave `weights`, `backbone` and `run` out"),
        ((*CUT, "student.prune.least=3"), "unknown key 'least'"),
    ],
)
def test_contradictions_are_one_sentence(tiny: Callable[..., Recipe], settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        tiny(*settings)
    assert said in str(caught.value)


def test_a_budget_below_what_is_locked_stops_before_training(tiny: Callable[..., Recipe], run_command: Run) -> None:
    """The least that can be reached is said, and nothing is written."""
    ending = run_command("distill", "tiny.toml", "--out", "run", *words((CUT[0], "student.prune={params=20}")))
    assert ending.code == 1
    assert "the least that can be reached" in ending.err
    assert not Path("run").exists()


def test_a_sweep_prunes_what_has_no_knobs(tiny: Callable[..., Recipe], run_command: Run) -> None:
    """Out of the teacher, where that is the same model; each within its budget, and built back by the gate's reader."""
    own = words(("student.settings={width=12,classes=3}",))
    ending = run_command("sweep", "tiny.toml", "--params", "500,1K", "--out", "curve", "--no-preflight", *own)
    assert ending.code == 0, ending.err
    record = Sweep.load(Path("curve/sweep.json"))
    assert record.made_by == "prune"
    for point in record.points:
        run = Path("curve") / point.folder
        assert point.params == size(run / "weights" / "last.safetensors") <= point.budget
        assert load_recipe(run / "recipe.toml").student.weights == "teacher"
    assert run_command("gate", "curve", "--margin", "0.9").code in {0, 1, 3}
    assert run_command("report", "curve").code == 0
    listed = run_command("sweep", "tiny.toml", "--params", "500", "--dry-run", *own).out
    assert "pruned" in listed
    assert "stay within the budgets" in listed


def test_trained_weights_say_how_they_were_cut(ran: Run, tmp_path: Path) -> None:
    """Saved again, and again, they build the same model back."""
    recipe, weights = load_recipe("run/recipe.toml"), Path("run/weights/last.safetensors")
    _, model = build_trained(recipe, weights, task=task_of(recipe))
    save_weights(model, tmp_path / "again.safetensors")
    _, again = build_trained(recipe, tmp_path / "again.safetensors", task=task_of(recipe))
    image = torch.rand(2, 3, 64, 64)
    assert torch.equal(model.eval()(image), again.eval()(image))
