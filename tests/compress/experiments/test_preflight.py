"""The preflight: silent when all is well, and one sentence for each of what has ruined distillations elsewhere."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featherpress.compress.distillation.adapters import Adapters
from featherpress.compress.distillation.losses import registry
from featherpress.compress.distillation.step import Step
from featherpress.compress.distillation.teachers import BoundTeacher, TeacherOutputs, call
from featherpress.compress.experiments import preflight as preflight_module
from featherpress.compress.experiments.build import build_teacher, build_trained
from featherpress.compress.experiments.distill import check
from featherpress.compress.experiments.preflight import Finding, preflight, require_sound
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.classification.shapes import ShapesTask
from featherpress.compress.training import trainer
from featherpress.compress.training.trainer import Trainer
from featherpress.errors import CheckpointError, TrainingError, UsageError
from featherpress.files import write_json
from featherpress.models import save_weights
from featherpress.models.inputs import remember_input

RECIPE = """
name = "tiny"
[student]
model = "tiny_models:net"
settings = { classes = 3 }
[teacher]
model = "tiny_models:net"
settings = { width = 12, classes = 3 }
schedule = { epochs = 1, batch_size = 4 }
[data]
kind = "shapes"
image_size = 64
classes = 3
variants = 1
train_images = 12
validation_images = 30
[schedule]
epochs = 1
batch_size = 4
[distillation]
[distillation.losses.logits]
loss = "kl"
[distillation.losses.feature]
loss = "pkd"
student = "1"
teacher = "1"
start = 0.5
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe between two tiny classifiers, in a folder where their module is found."""
    shutil.copy(Path(__file__).with_name("tiny_models.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return load_recipe(tmp_path / "tiny.toml")


def failures(recipe: Recipe) -> list[str]:
    return [finding.sentence for finding in preflight(recipe) if not finding.passed]


def test_a_sound_recipe_passes_and_leaves_nothing(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    """Every check is there and passes, with terms that begin late and modules that share weights; no file is left."""
    recipe = tiny('student.model="tiny_models:tied"')
    before = sorted(tmp_path.rglob("*.*"))
    findings = preflight(recipe)
    assert [finding.sentence for finding in findings if not finding.passed] == []
    names = {finding.check for finding in findings}
    assert names >= {
        *("teacher evaluates", "taps fire", "adapters are held", "adapters change", "kd_logits", "kd_feature"),
        *("task loss stays", "off is plain", "student is saved alone", "teacher stays"),
    }
    assert [path for path in sorted(tmp_path.rglob("*.*")) if "__pycache__" not in path.parts] == before
    require_sound(recipe)


def test_nothing_to_check_without_a_teacher(recipe: Recipe) -> None:
    """A recipe without teacher has no preflight."""
    with pytest.raises(UsageError, match="has no teacher"):
        preflight(recipe.model_copy(update={"teacher": None}))


def lose_adapters(patch: pytest.MonkeyPatch) -> None:
    build = Trainer.__init__

    def init(self: Trainer, *arguments: Any, **keywords: Any) -> None:
        build(self, *arguments, **keywords)
        for group in self.optimizer.param_groups:
            group["params"] = list(self.plain.parameters())

    patch.setattr(Trainer, "__init__", init)


def cut_the_gradient(patch: pytest.MonkeyPatch) -> None:
    adapt = Adapters.forward
    patch.setattr(Adapters, "forward", lambda *a, **k: [level.detach() for level in adapt(*a, **k)])


def never_fire(patch: pytest.MonkeyPatch) -> None:
    enter = Step.__enter__

    def without_hooks(self: Step) -> Step:
        for tap in self.kd.taps.values():
            tap.close()
        return enter(self)

    patch.setattr(Step, "__enter__", without_hooks)


def sabotage(patch: pytest.MonkeyPatch, name: str, function: Callable[..., Tensor]) -> None:
    patch.setitem(registry._REGISTER, name, replace(registry.find_loss(name), function=function))


def teach_nothing(patch: pytest.MonkeyPatch) -> None:
    sabotage(patch, "pkd", lambda student, _teacher, **_: student.sum() * 0)


def teach_infinity(patch: pytest.MonkeyPatch) -> None:
    sabotage(patch, "kl", lambda student, _teacher, **_: student.sum() / 0)


def teach_with_a_bad_root(patch: pytest.MonkeyPatch) -> None:
    sabotage(patch, "kl", lambda student, _teacher, **_: (student - student.detach()).square().sum().sqrt())


def leak(patch: pytest.MonkeyPatch) -> None:
    step = Trainer._forward

    def with_a_term_of_its_own(self: Trainer, *arguments: Any) -> tuple[Any, ...]:
        terms, context, outputs, begun = step(self, *arguments)
        extra = 1e-3 * outputs["logits"].square().sum() if begun else 0
        return {**terms, "class": terms["class"] + extra}, context, outputs, begun

    patch.setattr(Trainer, "_forward", with_a_term_of_its_own)


def scale_the_task_down(patch: pytest.MonkeyPatch) -> None:
    forward = Trainer._forward

    def halve(self: Trainer, *arguments: Any) -> tuple[Any, ...]:
        terms, *rest = forward(self, *arguments)
        return ({**terms, "class": terms["class"] / 2} if self.distiller else terms), *rest

    patch.setattr(Trainer, "_forward", halve)


def save_the_wrapper(patch: pytest.MonkeyPatch) -> None:
    def save(model: nn.Module, path: Path, **keywords: Any) -> None:
        save_weights(nn.ModuleDict({"module": model}), path, **keywords)

    patch.setattr(trainer, "save_weights", save)


def flip_the_teacher(patch: pytest.MonkeyPatch) -> None:
    @torch.no_grad()
    def ask(self: BoundTeacher, inputs: Any, **_: Any) -> TeacherOutputs:
        self.model.train()
        with self.taps["1"].open() as tap:
            outputs = self.name_outputs(call(self.model, inputs))
        return TeacherOutputs(outputs=outputs, features={"1": tap.take()})

    patch.setattr(BoundTeacher, "ask", ask)


def train_the_teacher(patch: pytest.MonkeyPatch) -> None:
    ask = BoundTeacher.ask

    def and_move(self: BoundTeacher, inputs: Any, **keywords: Any) -> TeacherOutputs:
        next(self.model.parameters()).data.mul_(0.99)
        return ask(self, inputs, **keywords)

    patch.setattr(BoundTeacher, "ask", and_move)


SABOTAGES: list[tuple[Callable[[pytest.MonkeyPatch], None], str]] = [
    (lose_adapters, "the adapter kd_0_feature.0.weight is in no optimizer"),
    (cut_the_gradient, "the adapter kd_0_feature.0.weight did not change: no gradient reaches it"),
    (never_fire, "a step failed: no tap caught anything in this step ('1' and others)"),
    (teach_nothing, "kd_feature is at most 0 in 3 steps: it has no effect"),
    (teach_infinity, "the task's own terms are finite: look at what the teacher says of these images"),
    (teach_with_a_bad_root, "a step failed: the gradient is not finite at step 1, although every loss is"),
    (leak, "distillation changes the supervised loss: class is"),
    (scale_the_task_down, "distillation changes the supervised loss: class is"),
    (save_the_wrapper, "the saved weights are not only the student's: 0.0.bias is in one of the two"),
    (flip_the_teacher, "the teacher is in training mode at itself: its weights or buffers are not the same as before"),
    (train_the_teacher, "the teacher changed: its weights or buffers are not the same as before"),
]


@pytest.mark.parametrize(("sabotage", "words"), SABOTAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_each_failure_is_found(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, sabotage: Callable[[pytest.MonkeyPatch], None], words: str
) -> None:
    """What has gone wrong elsewhere, done on purpose, fails with one sentence that names it, and stops a run."""
    sabotage(monkeypatch)
    found = failures(recipe)
    assert any(sentence.startswith(words) or words in sentence for sentence in found), found
    assert all("\n" not in sentence for sentence in found)
    with pytest.raises(TrainingError, match=r"^preflight: .*--no-preflight starts the run anyway$"):
        require_sound(recipe)


def with_weights(recipe: Recipe, path: Path) -> Recipe:
    assert recipe.teacher is not None
    own = recipe.teacher.model_copy(update={"weights": str(path)})
    return recipe.model_copy(update={"teacher": own})


def test_teacher_that_knows_nothing(recipe: Recipe, tmp_path: Path) -> None:
    """A teacher whose weights say the same of every image is found out before it teaches."""
    model = ShapesTask(recipe).build("tiny_models:net", {"width": 12})
    with torch.no_grad():
        model[4].weight.zero_()  # type: ignore[index, operator, union-attr]
        model[4].bias.copy_(torch.tensor([1.0, 0, 0]))  # type: ignore[index, operator, union-attr]
    save_weights(model, tmp_path / "dull.safetensors")
    assert any(
        re.search(r"accuracy on 16 validation images or fewer is 0\.3\d+, below 0\.\d+: check its weights", each)
        for each in failures(with_weights(recipe, tmp_path / "dull.safetensors"))
    )


def test_teacher_on_other_images_than_it_was_trained_on(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that scores less than its record on the same images is found out; without a record nothing is said."""
    task, run = ShapesTask(recipe), tmp_path / "run"
    model = task.build("tiny_models:net", {"width": 12})
    save_weights(model, run / "weights" / "last.safetensors")
    mine = with_weights(recipe, run / "weights" / "last.safetensors")
    monkeypatch.setattr(preflight_module, "_fly", lambda *_: [])

    def record(predicted: Callable[[Any], Any], weights: str = "last.safetensors") -> list[Finding]:
        said = task.evaluate(model, task.open("val"), label="").predictions
        replace(said, predicted=predicted(said.labels)).save(run / "eval" / "validation.npz")
        write_json(run / "eval" / "validation.json", {"weights": weights})
        return [finding for finding in preflight(mine) if finding.check == "teacher scores as recorded"]

    # Of the 30 images that the run was scored on, a preflight looks at the first 16.
    right = record(lambda labels: np.where(np.arange(30) < 16, labels, (labels + 1) % 3))
    wrong = record(lambda labels: (labels + 1) % 3)
    few = ShapesTask(load_recipe("tiny.toml", settings=["data.validation_images=16"]))
    score = re.escape(f"{few.evaluate(model, few.open('val'), label='').score:.3f}")
    assert [each.passed for each in (*right, *wrong)] == [False, True]
    assert re.search(rf"fewer is {score}, but its record has 1.000 on the same: do its images come", right[0].sentence)
    assert record(lambda labels: labels, weights="best.safetensors") == []
    shutil.rmtree(run / "eval")
    assert not any(finding.check == "teacher scores as recorded" for finding in preflight(mine))


def test_teacher_of_which_a_part_is_missing(recipe: Recipe, tmp_path: Path) -> None:
    """Weights are loaded strictly: a file without one of them is refused with its name, never filled up."""
    model = ShapesTask(recipe).build("tiny_models:net", {"width": 12})
    part = nn.Sequential(*list(model.children())[:4])  # type: ignore[arg-type]
    save_weights(part, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match=r"4\.(weight|bias)"):
        preflight(with_weights(recipe, tmp_path / "part.safetensors"))


def test_findings_read_as_lines() -> None:
    """A finding prints as one line that can be searched for FAIL."""
    assert str(Finding(check="x", passed=True, sentence="fine")) == "ok    fine"
    assert str(Finding(check="x", passed=False, sentence="bad")) == "FAIL  bad"


def test_command(
    recipe: Recipe, run_command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`featherpress preflight` ends with 0 or 1; a student over its budget is a finding; `distill` does not start."""
    assert recipe.name == "tiny"
    ending = run_command("preflight", "tiny.toml")
    assert ending.code == 0, ending.out
    assert ending.out.startswith("ok    the recipe names no budget\n")
    (tmp_path / "budget.toml").write_text('model = "tiny"\ninput = [1, 3, 64, 64]\n[total]\nparams = { max = 10 }\n')
    ending = run_command("preflight", "tiny.toml", "--set", "budget=budget.toml", "--json")
    assert ending.code == 1
    assert '"schema": "featherpress.preflight/1"' in ending.out
    assert "breaks its budget" in ending.out
    teach_nothing(monkeypatch)
    ending = run_command("distill", "tiny.toml", "--out", "run")
    assert ending.code == 2
    assert "preflight: kd_feature is at most 0" in ending.err
    assert not (tmp_path / "run").exists()


def test_other_roundings_are_no_leak(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where weighing nothing changes the layout of gradients, and so last bits, a sound recipe still passes."""
    run = preflight_module._run

    def round_otherwise(trainer: Trainer) -> Any:
        flight = run(trainer)
        return replace(flight, hash="other bits") if trainer.folder.path.name in ("off", "twin") else flight

    monkeypatch.setattr(preflight_module, "_run", round_otherwise)
    findings = {finding.check: finding for finding in preflight(recipe)}
    assert findings["off is plain"].passed
    assert "the teacher makes no difference" in findings["off is plain"].sentence


def test_a_teacher_that_counts_at_weight_0_is_a_leak(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights than plain training's, and others with another teacher, are refused."""
    run = preflight_module._run
    monkeypatch.setattr(preflight_module, "_run", lambda trainer: replace(run(trainer), hash=trainer.folder.path.name))
    failed = [finding.check for finding in preflight(recipe) if not finding.passed]
    assert failed == ["off is plain"]


def test_a_loss_that_stays_at_weight_0_is_a_leak(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is not the task's is refused whatever the weights are."""
    run = preflight_module._run

    def more(trainer: Trainer) -> Any:
        flight = run(trainer)
        if trainer.folder.path.name not in ("off", "twin"):
            return flight
        rows = [row | {"loss": f"{float(row['task']) + 1}"} for row in flight.rows]
        return replace(flight, hash="other bits", rows=rows)

    monkeypatch.setattr(preflight_module, "_run", more)
    assert [finding.check for finding in preflight(recipe) if not finding.passed] == ["off is plain"]


def test_a_training_that_ends_before_its_terms_have_grown_is_told(
    tiny: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    """Distillation that hardly counts would pass for one that does not help."""
    check(tiny("distillation.ramp_steps=100000"), leaks=False)
    assert "logits grows over 100000 steps, and reaches 3e-05 of its weight in 3: set" in caplog.text
    caplog.clear()
    check(tiny("distillation.losses.feature.ramp_steps=50", "distillation.losses.feature.start=0"), leaks=False)
    assert "feature grows over 50 steps" in caplog.text
    caplog.clear()
    check(tiny("distillation.ramp_steps=1"), leaks=False)
    assert "grows" not in caplog.text


@pytest.mark.parametrize("times", ["losses.feature.start=0.95", "losses.feature.stop=0.8", "stop=1.0"])
def test_a_term_that_is_never_on_is_refused(tiny: Callable[..., Recipe], times: str) -> None:
    """One that begins after it has stopped; the preflight's few steps have all terms on, and would not see it."""
    with pytest.raises(UsageError, match=r"losses\.\w+` is off at all of the 3 steps: it begins after the fraction"):
        check(tiny(f"distillation.{times}"), leaks=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"classes": ("square", "disc", "triangle")}, "has 'disc' as class 1, the recipe as class 0"),
        ({"mean": (0.1, 0.2, 0.3)}, "normalised by the mean (0.1, 0.2, 0.3)"),
    ],
)
def test_weights_that_say_otherwise_are_refused(tiny: Callable[..., Recipe], change: dict[str, Any], says: str) -> None:
    """A teacher, and a model that is scored, whose file has its classes at other places, or another normalisation."""
    recipe = tiny("teacher={model='tiny_models:net',settings={classes=3},weights='t.safetensors'}")
    task, own, weights = task_of(recipe), recipe.all_teachers[0], Path("t.safetensors")
    model = task.build(own.model, own.settings)
    save_weights(model, weights)
    build_teacher(recipe, 0, task=task)
    remember_input(model, replace(task.takes(model), **change))
    save_weights(model, weights)
    with pytest.raises(CheckpointError, match=re.escape(says)):
        build_teacher(recipe, 0, task=task)
    with pytest.raises(CheckpointError, match=re.escape(says)):
        build_trained(recipe, weights, task=task, role="teacher")
