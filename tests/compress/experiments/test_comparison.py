"""The arms of a comparison: that they differ in one thing, train as long, and are recorded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from featherpress.compress.distillation.placebos import shuffled, smoothed
from featherpress.compress.distillation.teachers import TeacherOutputs
from featherpress.compress.experiments import arms, conclusion
from featherpress.compress.experiments.arms import arm_folder, count_steps, list_arms
from featherpress.compress.experiments.distill import distill
from featherpress.compress.experiments.experiment import Experiment
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.errors import RecipeError
from featherpress.records.comparison import Comparison
from featherpress.verdicts import Scores

ALL = 'placebos=["shuffled", "smoothing", "compute"]'


PATIENT = ("schedule.epochs=6", "schedule.evaluate_every=1", "schedule.patience=1", "schedule.learning_rate=1e-9")


def test_with_a_control_no_arm_stops_early(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    """At a rate of next to nothing no score gets better; both go on to the end, and the record has the steps."""
    recipe = tiny(*PATIENT)
    distill(recipe, tmp_path / "run")
    steps = [count_steps(tmp_path / "run" / arm) for arm in ("", "control")]
    assert steps[0] == steps[1] == 6 * (count_steps(tmp_path / "run") // 6) > 6
    record = Comparison.load(tmp_path / "run/eval/comparison.json")
    assert record.steps is not None
    assert (record.steps.distilled, record.steps.control) == ((steps[0],), (steps[1],))


def test_without_a_control_an_early_stop_is_one(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    distill(tiny(*PATIENT, "control=false"), tmp_path / "run")
    assert count_steps(tmp_path / "run") < 6 * 3


def test_arms_of_different_lengths_get_no_verdict(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    """As a run has it whose arms stopped early before that was forbidden."""
    experiment = Experiment(tiny(), tmp_path, {})
    right = torch.arange(40).remainder(2).numpy()
    sides = {"student": Scores.of([right | 1] * 3), "control": Scores.of([right] * 3)}
    shown = conclusion.compare_arms(experiment, sides, {"student": (48,) * 3, "control": (48,) * 3})
    hidden = conclusion.compare_arms(experiment, sides, {"student": (216, 48, 48), "control": (48,) * 3})
    assert (shown.verdict, hidden.verdict) == ("better", "undecided")
    assert "student and control trained 48/216 and 48 steps" in hidden.sentence


def test_one_seed_says_nothing_of_the_method_and_something_of_the_files(
    tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    experiment = Experiment(tiny(), tmp_path, {})
    right = torch.arange(40).remainder(2).numpy()
    sides = {"student": Scores.of(right | 1), "control": Scores.of(right)}
    found = conclusion.compare_arms(experiment, sides, {"student": (48,), "control": (48,)})
    assert found.verdict == "undecided"
    assert found.sentence.startswith("No verdict on distillation: 1 seed, and a claim about a method takes 3 or more")
    assert "weights/last.safetensors scores 0.500 higher than control/weights/last.safetensors" in found.sentence
    assert found.sentence.endswith(": better.")


@pytest.mark.parametrize(("lost", "outcome"), [(0, "not worse"), (20, "worse")])
def test_a_student_is_as_good_as_its_teacher_by_gate_alone(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int, outcome: str
) -> None:
    """Equal on every image it is not worse; wrong on half of them it is."""
    experiment = Experiment(tiny(), tmp_path, {})
    right = torch.ones(40).numpy()
    wrong = torch.cat([torch.zeros(lost), torch.ones(40 - lost)]).numpy()
    monkeypatch.setattr(experiment.task, "scores", lambda sets: Scores.of(right) if sets == ["taught"] else None)
    sentence = conclusion._beside_teacher(experiment, "taught", Scores.of([wrong] * 3))
    assert sentence.startswith(f"{outcome}: the student scores ")
    assert "the margin is 0.010" in sentence


def test_the_backbone_that_both_start_from_is_said(tiny: Callable[..., Recipe]) -> None:
    shared = tiny().model_copy(update={"student": tiny().student.model_copy(update={"backbone": "teacher"})})
    assert conclusion.method_claim(shared, "ap").beyond == "beyond the backbone that both start from"
    assert conclusion.method_claim(tiny(), "ap").beyond == ""


def test_placebos_are_trained_recorded_and_kept(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a row beside the control; the longer one's ratio is measured once, and read again on resuming."""
    monkeypatch.setattr(arms, "_seconds_per_image", lambda folder: 1.0 if folder.name == "control" else 2.1)
    recipe = tiny(ALL, "seeds=[0, 1, 2]")
    distill(recipe, tmp_path / "run")
    record = Comparison.load(tmp_path / "run/eval/comparison.json")
    assert [each.name for each in record.others] == ["shuffled", "smoothing", "compute"]
    assert record.steps is not None
    plain = record.steps.control[0]
    assert [each.steps for each in record.others] == [(plain,) * 3, (plain,) * 3, (2 * plain,) * 3]
    assert all(
        len(each.scores.scores) == 3 and each.difference.covers == ("seeds", "examples") for each in record.others
    )
    best = max(record.others, key=lambda each: each.scores.mean)
    assert record.knowledge is not None
    assert record.knowledge.placebo == best.name
    assert record.knowledge.difference.mean == pytest.approx(record.distilled.mean - best.scores.mean)
    assert "knowledge" in record.knowledge.sentence
    assert json.loads((tmp_path / "run/compute.json").read_text())["ratio"] == pytest.approx(2.1)
    monkeypatch.setattr(arms, "_seconds_per_image", lambda _folder: pytest.fail("measured again"))
    shutil.rmtree(tmp_path / "run/compute")
    distill(recipe, tmp_path / "run")
    assert Comparison.load(tmp_path / "run/eval/comparison.json").others[2].steps == (2 * plain,) * 3
    # The arms themselves are untouched by the placebos.
    distill(tiny("seeds=[0, 1, 2]"), tmp_path / "plain")
    alone = Comparison.load(tmp_path / "plain/eval/comparison.json")
    assert (alone.control, alone.distilled, alone.others) == (record.control, record.distilled, ())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((ALL, "control=false"), "stand beside a control"),
        (('placebos=["compute", "compute"]',), "holds one twice"),
        ((ALL, "schedule.batch_size=1"), "none to be shuffled with"),
        ((ALL, "distillation.losses.logits.weight=0"), "needs a loss between logits"),
        (('placebos=["wrong"]',), "shuffled"),
        (("student.public_backbone=a.safetensors",), "start from the teacher's backbone"),
    ],
)
def test_placebos_that_make_no_sense_are_refused(
    tiny: Callable[..., Recipe], settings: tuple[str, ...], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        tiny(*settings)


def test_arms_are_listed_only_beside_both(tiny: Callable[..., Recipe]) -> None:
    recipe = tiny(ALL)
    assert list_arms(recipe) == ["student", "control", "shuffled", "smoothing", "compute"]
    assert list_arms(recipe, ["student"]) == ["student"]
    assert list_arms(tiny("control=false")) == ["student"]
    assert arm_folder(Path("run"), "compute") == Path("run/compute")


def test_a_shuffled_teacher_speaks_of_another_image() -> None:
    """Outputs and features move together, and no image keeps its own."""
    rows = torch.arange(4.0)
    found = shuffled(TeacherOutputs(outputs={"logits": rows[:, None]}, features={"tap": [rows.view(4, 1, 1, 1)]}))
    assert found.outputs["logits"].flatten().tolist() == [3, 0, 1, 2]
    assert found.features["tap"][0].flatten().tolist() == [3, 0, 1, 2]


def test_smoothed_labels_are_as_sure_as_the_teacher_and_know_nothing_else() -> None:
    """Probabilities 0.9 and 0.5 of the labels are 0.7 on average; the other two classes share the rest equally."""
    chances = torch.tensor([[0.9, 0.08, 0.02], [0.4, 0.5, 0.1]])
    found = smoothed(TeacherOutputs(outputs={"logits": chances.log()}, features={}), {"labels": torch.tensor([0, 1])})
    expected = torch.tensor([[0.7, 0.15, 0.15], [0.15, 0.7, 0.15]])
    assert torch.allclose(found.outputs["logits"].softmax(dim=1), expected)


def test_smoothed_priors_are_faces_or_background_by_their_labels() -> None:
    """Two positives at 0.8 and 0.6 become 0.7; two others at 0.1 and 0.3 become 0.2, wherever the teacher was sure."""
    face = torch.tensor([[0.8, 0.1], [0.3, 0.6]])
    positive = torch.tensor([[True, False], [False, True]])
    logits: Tensor = torch.stack([(1 - face).log(), face.log()], dim=2)
    found = smoothed(TeacherOutputs(outputs={"logits": logits}, features={}), {"positive": positive})
    assert torch.allclose(found.outputs["logits"].softmax(dim=2)[..., 1], torch.tensor([[0.7, 0.2], [0.2, 0.7]]))


def test_the_public_arm_starts_from_the_public_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Student and control from the teacher's backbone, the third arm from the file; heads alike in all."""
    from featherpress.models import create_detector, save_weights

    torch.manual_seed(5)
    public = create_detector("featherface_v2").get_submodule("backbone")
    save_weights(public, tmp_path / "public.safetensors", metadata={})
    recipe = load_recipe(
        "v1_to_v2",
        settings=[
            *("data.kind=synthetic", "data.train_images=4", "data.validation_images=2", "data.size=64"),
            'teacher={ model = "featherface_v2", weights = "shipped" }',
            f"student.public_backbone={tmp_path}/public.safetensors",
        ],
    )
    experiment = Experiment(recipe, tmp_path, {})
    loaded: list[Any] = [SimpleNamespace(model=create_detector("featherface_v2"))]
    built = {arm: arms._build(experiment, arm, seed=0, loaded=loaded).state_dict() for arm in list_arms(recipe)}
    assert list(built) == ["student", "control", "public"]
    name = next(key for key in built["public"] if key.startswith("backbone.") and key.endswith("weight"))
    assert torch.equal(built["public"][name], public.state_dict()[name.removeprefix("backbone.")])
    assert torch.equal(built["student"][name], loaded[0].model.state_dict()[name])
    for key in built["student"]:
        assert torch.equal(built["student"][key], built["control"][key])
        assert key.startswith("backbone.") or torch.equal(built["student"][key], built["public"][key])


def test_what_a_step_costs_is_the_mean_over_the_log(tmp_path: Path) -> None:
    """At 10 and at 40 images a second, 1/10 and 1/40 s an image: 1/16 s on average; lines without a speed are none."""
    (tmp_path / "metrics.csv").write_text("step,images_per_second\n1,10\n2,40\n3,\n")
    assert arms._seconds_per_image(tmp_path) == pytest.approx(1 / 16)
