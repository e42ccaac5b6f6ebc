"""What the two arms of an experiment start from and are chosen by."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from featherpress.compress.data.synthetic.shapes import Shapes
from featherpress.compress.distillation.teachers import BoundTeacher
from featherpress.compress.evaluation.detector.inference import EvaluationResult
from featherpress.compress.experiments import arms, build
from featherpress.compress.experiments import distill as experiments
from featherpress.compress.experiments.build import build_student
from featherpress.compress.experiments.experiment import Experiment
from featherpress.compress.experiments.teachers import prepare_teachers
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.tasks.classification.shapes import ShapesTask
from featherpress.errors import TrainingError, UsageError
from featherpress.models import Detector, PriorSpec, save_weights


def test_the_control_differs_in_the_teacher_alone(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both arms of a seed start from the same weights, see the same crops in the same order, by the same schedule."""
    make, seen = Experiment.trainer, []

    def note(self: Experiment, model: nn.Module, folder: TrainingFolder, **keywords: Any) -> Any:
        crops = keywords["crops"]
        keys = tuple(crops.sampler.epoch_keys(0))
        pixels = crops.batch(keys).images.sum().item()
        seen.append((keywords["role"], fingerprint(model), keys, pixels, keywords["schedule"], keywords["distiller"]))
        return make(self, model, folder, **keywords)

    recipe = tiny("seeds=[3, 5]")
    experiment = Experiment(recipe, tmp_path / "run", {})
    experiment.begin("distill")
    loaded = prepare_teachers(experiment)
    monkeypatch.setattr(experiments, "prepare_teachers", lambda _experiment: loaded)
    monkeypatch.setattr(Experiment, "trainer", note)
    experiments.distill(recipe, tmp_path / "run")
    assert [role for role, *_ in seen] == ["student", "control"] * 2
    for student, control in (seen[:2], seen[2:]):
        assert student[1:5] == control[1:5]
        assert (student[5] is None, control[5] is None) == (False, True)
    assert not {seen[0][1], seen[0][2], seen[0][3]} & {seen[2][1], seen[2][2], seen[2][3]}
    expected = build_student(recipe, 3, task=experiment.task, teachers=())
    assert seen[0][1] == fingerprint(expected)


class Parts:
    """A task whose models are a backbone and a head of a few numbers."""

    def build(self, target: str, settings: Mapping[str, Any]) -> nn.Module:
        return nn.ModuleDict({"backbone": nn.Linear(2, int(settings.get("width", 2))), "head": nn.Linear(2, 1)})


def started(*settings: str, teachers: Sequence[nn.Module] = (), control: bool = False) -> dict[str, Tensor]:
    """Return the weights that an arm of seed 0 starts from."""
    recipe = load_recipe("v1_to_v2", settings=["student.backbone=''", *settings])
    task: Any = Parts()
    return build_student(recipe, 0, task=task, teachers=teachers, control=control).state_dict()


def test_the_backbone_is_the_first_fitting_teachers() -> None:
    """It is taken from the first teacher with one of its shapes; all else is the seed's. Another's is refused."""
    narrow, first, second = (Parts().build("", {"width": width}) for width in (3, 2, 2))
    narrow.backbone.bias, taken = None, first.state_dict()
    found, plain = started("student.backbone=teacher", teachers=[narrow, first, second]), started()
    assert all(torch.equal(found[name], taken[name]) for name in found if name.startswith("backbone."))
    assert all(torch.equal(found[name], plain[name]) for name in found if name.startswith("head."))
    assert not torch.equal(plain["backbone.weight"], taken["backbone.weight"])
    with pytest.raises(UsageError, match="no part of the teacher's backbone has the student's shapes"):
        started("student.backbone=teacher", teachers=[narrow])
    with pytest.raises(UsageError, match="training alone loads none"):
        started("student.backbone=teacher")


def test_a_student_without_a_backbone_is_told_so() -> None:
    """Nothing of two alike models fits where none of their modules has that name."""
    with pytest.raises(UsageError, match="Linear has no module called `backbone`"):
        build._take_backbone(nn.Linear(2, 2), [nn.Linear(2, 2)])


def test_an_arm_goes_on_from_the_same_arm(tmp_path: Path) -> None:
    """`student.run` starts the student from the earlier student and the control from the earlier control."""
    for arm in ("", "control"):
        earlier = Parts().build("", {})
        (tmp_path / arm / "weights").mkdir(parents=True)
        save_weights(earlier, tmp_path / arm / "weights" / "last.safetensors")
        found = started(f'student.run="{tmp_path}"', control=arm == "control")
        assert all(torch.equal(found[name], value) for name, value in earlier.state_dict().items())


def test_weights_to_start_from(tmp_path: Path) -> None:
    """`student.weights` is the whole model's file, and a path at `student.backbone` that of the backbone alone."""
    earlier = Parts().build("", {})
    save_weights(earlier, tmp_path / "all.safetensors")
    save_weights(earlier.backbone, tmp_path / "backbone.safetensors")
    whole, part, plain = (
        started(f'student.weights="{tmp_path / "all.safetensors"}"'),
        started(f'student.backbone="{tmp_path / "backbone.safetensors"}"'),
        started(),
    )
    for name, value in earlier.state_dict().items():
        assert torch.equal(whole[name], value)
        assert torch.equal(part[name], value if name.startswith("backbone.") else plain[name])


def test_the_best_weights_are_chosen_on_what_is_held_out(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores fall on the held-out images and rise on the validation images: the best weights are the first epoch's."""
    experiment = Experiment(
        tiny("schedule.epochs=2", "schedule.evaluate_every=1", "schedule.evaluate_images=5"), tmp_path, {}
    )
    experiment.holdout = Shapes(length=7, seed=9, size=64, classes=3)
    evaluate, asked = ShapesTask.evaluate, []

    def fall(self: ShapesTask, model: nn.Module, dataset: Any, **keywords: Any) -> EvaluationResult:
        if keywords.get("about"):
            return evaluate(self, model, dataset, **keywords)
        asked.append(len(dataset))
        assert keywords["images"] == 5
        return EvaluationResult(predictions=None, score=(1 if len(dataset) == 7 else -1) / len(asked), record={})

    monkeypatch.setattr(ShapesTask, "evaluate", fall)
    trainer = experiment.trainer(
        experiment.task.build("tiny_models:net", {"classes": 3}),
        TrainingFolder(tmp_path),
        role="student",
        schedule=experiment.recipe.schedule,
        crops=experiment.crops(0),
    )
    experiment.conclude(trainer, trainer.run(), name="tiny")
    assert asked == [7, 7]
    steps = [
        int(load_file(tmp_path / "weights" / f"{name}.safetensors")["0.1.num_batches_tracked"])
        for name in ("best", "last")
    ]
    assert steps == [3, 6]


def test_training_alone_leaves_its_record(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    """The student of the first seed, without a teacher; what it costs is in its record and in `budget.json`."""
    recipe = tiny("seeds=[4, 5]")
    experiments.train(recipe, tmp_path / "run", audits={"student": {"total": {"macs": 7}}})
    record = json.loads((tmp_path / "run" / "eval" / "validation.json").read_text())
    assert (record["role"], record["macs"], record["model"]) == ("student", 7, "tiny_models:net")
    assert record["weights"] == "last.safetensors"
    assert json.loads((tmp_path / "run" / "budget.json").read_text())["student"] == {"total": {"macs": 7}}
    assert load_recipe(tmp_path / "run" / "recipe.toml") == recipe
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["seconds"] is not None
    assert not list((tmp_path / "run").glob("seed-*"))
    experiments.train(tiny("seeds=[4]"), tmp_path / "bare")
    assert not (tmp_path / "bare" / "budget.json").exists()
    one, other = (load_file(tmp_path / run / "weights" / "last.safetensors") for run in ("run", "bare"))
    assert all(torch.equal(one[name], value) for name, value in other.items())


def test_what_is_scored_is_what_is_saved(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The averaged weights of the last step are; adapters are counted apart, and broken images counted and told."""
    score, same = Experiment.score, []

    def note(self: Experiment, model: nn.Module, folder: TrainingFolder, **keywords: Any) -> Any:
        saved = load_file(keywords["weights"])
        same.append(all(torch.equal(value, saved[name]) for name, value in model.state_dict().items()))
        return score(self, model, folder, **keywords)

    monkeypatch.setattr(Experiment, "score", note)
    crops = Experiment.crops

    def break_two(self: Experiment, seed: int) -> Any:
        cut = crops(self, seed)
        cut.broken = {1, 2}
        return cut

    monkeypatch.setattr(Experiment, "crops", break_two)
    audits = {"student": {"total": {"macs": 7}}}
    with caplog.at_level(logging.WARNING, logger="featherpress"):
        experiments.distill(tiny("control=false"), tmp_path, audits=audits)
    # The teacher is scored twice, after its training and before it teaches.
    assert same == [True] * 3
    assert json.loads((tmp_path / "budget.json").read_text())["adapters"] == {"params": 8 * 12 + 12}
    assert "student: 2 broken images were skipped in training" in caplog.text


def test_the_first_teacher_labels_photographs_for_the_student_alone() -> None:
    """Every other arm gets as many labelled crops on top instead."""
    task = SimpleNamespace(unlabelled_crops=lambda _images, _seed, *, teacher, out: (teacher, out))
    teachers = [Detector(PriorSpec()) for _ in range(2)]
    loaded: Any = [SimpleNamespace(model=teacher) for teacher in teachers]
    experiment: Any = SimpleNamespace(recipe=None, training=None, out="here", task=task)
    given = {arm: arms._crops(experiment, arm, seed=0, loaded=loaded) for arm in ("student", "control", "shuffled")}
    assert given == {"student": (teachers[0], "here"), "control": (None, "here"), "shuffled": (None, "here")}


def test_a_teacher_that_changes_ends_the_run(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights and buffers must hash at the end as before anything learned from it."""
    ask = BoundTeacher.ask

    def and_move(self: BoundTeacher, inputs: Any, **keywords: Any) -> Any:
        next(self.model.buffers()).add_(1e-3)
        return ask(self, inputs, **keywords)

    monkeypatch.setattr(BoundTeacher, "ask", and_move)
    with pytest.raises(TrainingError, match="the teacher's weights or buffers changed during distillation"):
        experiments.distill(tiny("control=false"), tmp_path / "run")


def test_the_gallery_is_the_first_seeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of every arm and of the teacher, the predictions of the first seed, and of the first teacher."""
    monkeypatch.setattr(experiments, "record_correlation", lambda *_: None)
    monkeypatch.setattr(experiments, "record_comparison", lambda *_: None)
    shown: list[Any] = []
    task = SimpleNamespace(show=lambda folder, _images, predictions: shown.append((folder, predictions)))
    experiment: Any = SimpleNamespace(task=task, out=tmp_path, validation=None)
    loaded: Any = [SimpleNamespace(model=None)] * 2
    experiments._conclude(
        experiment, loaded, ["t1", "t2"], {"student": ["s0", "s1"], "control": ["c0", "c1"], "compute": ["p0", "p1"]}
    )
    assert shown == [(tmp_path / "eval" / "gallery", {"teacher": "t1", "student": "s0", "control": "c0"})]


def test_a_teacher_that_is_not_trained_needs_no_batch(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    """Images must fill one batch of the student, and one of each teacher that has no weights yet."""
    many = "teacher.schedule.batch_size=1000"
    with pytest.raises(UsageError, match="do not fill one batch of 1000"):
        experiments.check(tiny(many))
    model = ShapesTask(tiny()).build("tiny_models:net", {"width": 12})
    save_weights(model, tmp_path / "teacher.safetensors")
    experiments.check(tiny(many, "teacher.weights=teacher.safetensors"))
