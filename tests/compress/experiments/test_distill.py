"""Whole experiments at tiny size: every shipped recipe starts, several teachers teach, losses are ablated."""

import csv
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from featherpress.cli import app
from featherpress.compress.data import SyntheticFaces, TrainingCrops
from featherpress.compress.distillation.losses import registry
from featherpress.compress.distillation.teachers import BoundTeacher, TeacherOutputs
from featherpress.compress.experiments import ablation
from featherpress.compress.experiments.ablation import ablate_losses, ablation_lines, ablation_markdown, variants
from featherpress.compress.experiments.distill import check, distill
from featherpress.compress.experiments.experiment import Experiment
from featherpress.compress.experiments.teachers import evaluate_teacher, make_distiller, prepare_teachers
from featherpress.compress.recipes import Recipe, load_recipe, recipe_schema, recipe_to_toml, shipped_recipes
from featherpress.compress.runtime.devices import default_device
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.detection.task import DetectionTask
from featherpress.errors import RecipeError, TrainingError, UsageError
from featherpress.models import Detector, create_detector, load_detector
from tests.recipes import DRAWN_FACES

from .test_preflight import RECIPE

FACES = (
    "data.kind=synthetic",
    "data.size=64",
    "data.image_size=96",
    "data.variants=1",
    "data.train_images=8",
    "data.validation_images=2",
    "schedule.epochs=1",
    "schedule.batch_size=4",
    "schedule.log_every=1",
    "schedule.evaluate_every=0",
    "control=false",
)


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_dry_run(name: str, tmp_path: Path) -> None:
    """Every shipped recipe loads, and what a dry run prints of it loads to the same."""
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.all_teachers
    (tmp_path / "again.toml").write_text(recipe_to_toml(recipe))
    assert load_recipe(tmp_path / "again.toml") == recipe


@pytest.mark.parametrize("name", ["v1_to_v2", "paper_to_v2", "retinaface_to_v2", "two_teachers_to_v2"])
def test_shipped_face_recipes_start(name: str, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes its steps with the public weights, outputs cached, and leaves a student that loads by itself."""
    monkeypatch.setenv("FEATHERPRESS_SHARED", str(shared))
    monkeypatch.setattr("featherpress.compress.tasks.detection.task.DetectionTask.min_teacher_score", 0.0)
    recipe = load_recipe(name, settings=[*FACES, "distillation.stop=0"])
    check(recipe)
    distill(recipe, tmp_path / "run")
    logged = metrics(tmp_path / "run")
    assert len(logged) == 2
    assert all(float(row["kd_feature"]) > 0 and float(row["kd_class"]) > 0 for row in logged)
    assert isinstance(load_detector(tmp_path / "run" / "weights" / "last.safetensors"), Detector)
    found = sorted(path.name for path in (tmp_path / "run" / "eval").glob("teacher*.json"))
    assert found == (["teacher-2.json", "teacher.json"] if name == "two_teachers_to_v2" else ["teacher.json"])
    assert not (tmp_path / "run" / "cache").exists()


def test_teacher_without_weights_is_trained_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first phase: without weights V1 is trained by its own schedule, then distilled and compared."""
    monkeypatch.setattr("featherpress.compress.tasks.detection.task.DetectionTask.min_teacher_score", 0.0)
    schedule = "{ epochs = 1, batch_size = 8, evaluate_every = 0 }"
    recipe = load_recipe(
        "v1_to_v2", settings=[*FACES, 'teacher.weights=""', f"teacher.schedule={schedule}", "control=true"]
    )
    distill(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "teacher" / "weights" / "last.safetensors").exists()
    record = json.loads((tmp_path / "run" / "eval" / "comparison.json").read_text())
    assert record["metric"] == {"key": "ap", "name": "AP"}
    assert len(record["control"]["scores"]) == len(record["distilled"]["scores"]) == 1


def test_an_ablation_chooses_on_held_out_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a holdout every model is scored on it beside the validation images, and the ablation's table is of it."""
    monkeypatch.setattr("featherpress.compress.tasks.detection.task.DetectionTask.min_teacher_score", 0.0)
    settings = [setting for setting in FACES if not setting.startswith(("data.train_images", "data.validation_images"))]
    teacher = '{ model = "featherface_v2", weights = "shipped" }'
    recipe = load_recipe(
        "v1_to_v2",
        settings=[
            *(*settings, "data.train_images=11", "data.holdout=3", "data.validation_images=2", f"teacher={teacher}"),
            *("distillation.losses.box.weight=0", "distillation.losses.landmark.weight=0", "data.cache=disk"),
        ],
    )
    ablate_losses(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "decoded").exists()
    table = json.loads((tmp_path / "run" / "ablation" / "ablation.json").read_text())
    assert (table["split"], table["images"]) == ("holdout", 3)
    for folder, row in (("", 1), ("control", 0), ("ablation/only-class", 3)):
        records = tmp_path / "run" / folder / "eval"
        held_out, validation = (
            json.loads((records / f"{name}.json").read_text()) for name in ("holdout", "validation")
        )
        assert (held_out["data"]["split"], held_out["data"]["images"]) == ("holdout", 3)
        assert (validation["data"]["split"], validation["data"]["images"]) == ("val", 2)
        assert table["rows"][row]["score"] == pytest.approx(held_out["ap"])


def test_shipped_classifier_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe that is not about faces takes its steps, and compares accuracies."""
    monkeypatch.setattr("featherpress.compress.tasks.classification.base._BETTER_THAN_CHANCE", 0.0)
    small = [
        *("data.train_images=32", "data.validation_images=12", "schedule.epochs=1", "schedule.batch_size=16"),
        *("teacher.schedule.epochs=1", "teacher.schedule.batch_size=16", "schedule.log_every=1", "distillation.stop=0"),
    ]
    distill(load_recipe("classifier", settings=small), tmp_path / "run")
    assert float(metrics(tmp_path / "run")[0]["kd_feature"]) > 0
    record = json.loads((tmp_path / "run" / "eval" / "comparison.json").read_text())
    assert (record["metric"]["key"], record["data"]["images"]) == ("accuracy", 12)
    assert "accuracy" in record["sentence"]
    assert 0 <= record["teacher"]["score"] <= 1


def teacher_table(width: int, *, weight: int) -> str:
    settings = f"settings = {{ width = {width}, classes = 3 }}"
    schedule = "schedule = { epochs = 1, batch_size = 4 }"
    return f'{{ model = "tiny_models:net", {settings}, weight = {weight}, cache = "fp32", {schedule} }}'


@pytest.mark.parametrize("teaching", ["averaged", "sequential"])
def test_two_teachers(
    tiny: Callable[..., Recipe], tmp_path: Path, teaching: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Averaged teachers both teach at every step, one after the other each in its share of the steps."""
    first, second = teacher_table(16, weight=1), teacher_table(12, weight=2)
    (tmp_path / "two.toml").write_text(RECIPE.split("[teacher]")[0] + "[data]" + RECIPE.split("[data]")[1])
    recipe = load_recipe(
        tmp_path / "two.toml",
        settings=[
            *(f"teachers=[{first}, {second}]", f'distillation.teaching="{teaching}"', "control=false"),
            *("distillation.stop=0", "distillation.losses.feature.start=0"),
        ],
    )
    (tmp_path / "again.toml").write_text(recipe_to_toml(recipe))
    assert load_recipe(tmp_path / "again.toml") == recipe
    asked: list[int] = []

    ask = BoundTeacher.ask

    def note(self: BoundTeacher, inputs: Any, *, watch: bool = False) -> Any:
        if not watch:  # the example's
            asked.append(self.model[0][0].out_channels)  # type: ignore[index, union-attr, arg-type]
        return ask(self, inputs, watch=watch)

    monkeypatch.setattr(BoundTeacher, "ask", note)
    distill(recipe, tmp_path / "run")
    assert asked == ([16, 12] * 3 if teaching == "averaged" else [16, 12, 12])
    assert (tmp_path / "run" / "teacher-2" / "weights" / "last.safetensors").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (['teachers=[{model="a", weights="b"}]'], "`teacher` is one and `teachers` are several"),
        (['distillation.losses.feature.teacher=["1", "2"]'], "names 2 taps for 1 teachers"),
        (
            ['distillation.losses.x={loss="fgd", student="1", teacher="1"}'],
            "fgd asks for 'boxes', which",
        ),
        (
            ["distillation.default_losses=true"],
            "detector of faces, which ShapesTask has not; use kl, and leave default_losses out",
        ),
        (["distillation.losses={}"], "teaches by `distillation.losses`, and there is none: add one .*losses.class ="),
        (
            ["distillation.losses.logits.weight=0", "distillation.losses.feature.weight=0"],
            "teaches by `distillation.losses`, and all of them weigh 0",
        ),
        (["data.variants=0", "teacher.cache=true"], "never repeat cannot be cached"),
        (["data.holdout=2"], "neither a `root` nor a `holdout`"),
        (["data.unlabelled={root='x'}"], "shapes data has no `unlabelled` images"),
        (["data.crops.zoom_out_probability=1"], "unknown key 'crops' in data"),
    ],
)
def test_contradictions(tiny: Callable[..., Recipe], settings: list[str], words: str) -> None:
    """What a classifier's recipe, or one of several teachers, cannot say is one sentence."""
    with pytest.raises(RecipeError, match=words):
        tiny(*settings)


def test_a_teacher_is_scored_again_where_its_record_is_half_there(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    """Killed between the two files of a teacher's score, a run writes both when it goes on."""
    recipe = tiny("control=false")
    experiment = Experiment(recipe, tmp_path / "run", {})
    (teacher,) = prepare_teachers(experiment)
    evaluate_teacher(experiment, teacher)
    record = tmp_path / "run" / "eval" / "teacher.json"
    record.unlink()
    evaluate_teacher(experiment, teacher)
    assert json.loads(record.read_text())["role"] == "teacher"


@pytest.mark.usefixtures("own_precision", "tiny")
def test_a_trained_teacher_has_its_own_costs_and_precision(tmp_path: Path) -> None:
    """The second teacher's record has its own MACs; trained in bfloat16, a teacher speaks in its weights' precision."""
    schedule = "schedule = { epochs = 1, batch_size = 4, precision = 'bf16' }"
    one = f'{{ model = "tiny_models:net", settings = {{ width = 12, classes = 3 }}, {schedule} }}'
    (tmp_path / "two.toml").write_text(RECIPE.split("[teacher]")[0] + "[data]" + RECIPE.split("[data]")[1])
    recipe = load_recipe(tmp_path / "two.toml", settings=[f"teachers=[{one}, {one}]", "schedule.precision=bf16"])
    audits = {role: {"total": {"macs": macs}} for role, macs in (("teacher", 1), ("teacher-2", 2), ("student", 3))}
    experiment = Experiment(recipe, tmp_path / "run", audits)
    loaded = prepare_teachers(experiment)
    records = [tmp_path / "run" / name / "eval" / "validation.json" for name in ("teacher", "teacher-2")]
    assert [json.loads(record.read_text())["macs"] for record in records] == [1, 2]
    again = experiment.task.build("tiny_models:net", {"width": 12, "classes": 3}).eval()
    again.load_state_dict(load_file(loaded[0].weights))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded[0].model(image.to(default_device())).cpu(), again(image), rtol=1e-6, atol=1e-6)


def test_a_step_of_several_batches_must_be_filled(tiny: Callable[..., Recipe]) -> None:
    """Too few images for a step's batches together are found out before anything is written."""
    with pytest.raises(UsageError, match="12 images do not fill one batch of 16"):
        check(tiny("schedule.accumulate=4"))


def test_every_process_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several processes on a machine with GPUs, a teacher lies where its student will be trained."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for local, device in ((None, "cuda"), ("0", "cuda:0"), ("1", "cuda:1"), ("3", "cuda:1")):
        monkeypatch.setenv("WORLD_SIZE", "1" if local is None else "4")
        if local is None:
            monkeypatch.delenv("LOCAL_RANK", raising=False)
        else:
            monkeypatch.setenv("LOCAL_RANK", local)
        assert str(default_device()) == device


def test_adapters_leave_the_random_streams_of_gpus_alone(
    tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing adapters seeds no GPU, whose dropout would then differ from the control's, nor moves the CPU's."""
    recipe = tiny()
    student, teacher = (task_of(recipe).build("tiny_models:net", {"width": width, "classes": 3}) for width in (8, 12))

    def refuse(_seed: int) -> None:
        raise AssertionError("a GPU was seeded")

    monkeypatch.setattr("torch.cuda.manual_seed_all", refuse)
    before = torch.get_rng_state()
    attach = partial(make_distiller, recipe, {"teacher": teacher}, student, task=task_of(recipe))
    one, other = (attach(seed=seed).kd.adapters for seed in (1, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, one.parameters(), other.parameters()))


def test_priors_are_those_of_the_model_at_hand() -> None:
    """A task that trained a teacher first does not aim its student at the teacher's priors."""
    task = DetectionTask(load_recipe(DRAWN_FACES))
    batch = TrainingCrops(SyntheticFaces(length=1, seed=0, size=(64, 64)), size=64, seed=0).batch([(0, 0)])
    shapes = []
    for anchors in (2, 1, 2):
        model = create_detector("retinaface_mnet025", num_anchors=anchors)
        shapes.append(tuple(task.assign_targets(batch, model).positive.shape))
    assert shapes == [(1, 168), (1, 84), (1, 168)]


def test_priors_are_laid_out_once_for_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of a training asks for them, and they depend on anchors and size alone."""
    task, model = DetectionTask(load_recipe(DRAWN_FACES)), create_detector("featherface_v2")
    asked: list[int] = []
    priors = type(model).priors
    monkeypatch.setattr(type(model), "priors", lambda *sizes: asked.append(1) or priors(*sizes))
    batch = TrainingCrops(SyntheticFaces(length=1, seed=0, size=(64, 64)), size=64, seed=0).batch([(0, 0)])
    for _ in range(3):
        task.assign_targets(batch, model)
    assert len(asked) == 1


def test_dkd_teaches_three_classes_and_refuses_two(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    """DKD runs where there are three classes; where there are two it is refused before the run, with the reason."""
    distill(tiny("distillation.losses.logits.loss=dkd", "control=false"), tmp_path / "run")
    two = [f"{part}.classes=2" for part in ("student.settings", "teacher.settings", "data")]
    with pytest.raises(UsageError, match="three classes or more"):
        check(tiny("distillation.losses.logits.loss=dkd", *two))


def test_classifier_with_other_classes(tiny: Callable[..., Recipe]) -> None:
    """A model that gives other logits than the data has classes is named before the run."""
    with pytest.raises(UsageError, match=r"tiny_models:net gives \(1, 4\) for one image, expected logits \(1, 3\)"):
        check(tiny("student.settings.classes=4"))


def test_teacher_that_guesses_cannot_teach(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier hardly better than chance is not learned from."""
    monkeypatch.setattr("featherpress.compress.tasks.classification.base._BETTER_THAN_CHANCE", 2.7)
    with pytest.raises(
        TrainingError, match=r"the teacher's accuracy on the validation images is 0\.\d+, too low to teach: [0-9.]+ is"
    ):
        distill(tiny(), tmp_path / "run")


def test_shapes_are_their_seeds(tiny: Callable[..., Recipe]) -> None:
    """An image depends on seed and index alone, classes come in turn, and validation images are others."""
    task = task_of(tiny())
    one, two, other = task.open("train"), task.open("train"), task.open("val")
    assert torch.equal(one.image(5), two.image(5))
    assert not torch.equal(one.image(5), other.image(5))
    assert [one.label(index) for index in range(4)] == [0, 1, 2, 0]
    batch = task.crops(one, 0).batch([(3, 0), (4, 1)])
    again = task.crops(two, 0).batch([(4, 1)])
    assert torch.equal(batch.images[1], again.images[0])
    assert (batch.images.shape, batch.labels.tolist()) == ((2, 3, 64, 64), [0, 1])


def test_ablation(tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control, all, and each loss alone come out as one table with intervals; a second call does nothing again."""
    recipe = tiny("distillation.losses.third.loss=kl")
    assert list(variants(recipe)) == [
        *("only logits", "only feature", "only third"),
        *("without logits", "without feature", "without third"),
    ]
    recipe = tiny("schedule.log_every=1")
    shown = ablate_losses(recipe, tmp_path / "run")
    assert [line.split("  ")[0] for line in shown.splitlines()] == [
        "losses",
        "none",
        "all",
        "only logits",
        "only feature",
        "Verdicts are adjusted for the number of rows, by Holm.",
    ]
    record = json.loads((tmp_path / "run" / "ablation" / "ablation.json").read_text())
    assert (record["schema"], record["metric"], record["images"]) == ("featherpress.ablation/1", "accuracy", 30)
    for row in record["rows"][1:]:
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["difference"] == pytest.approx(row["score"] - record["rows"][0]["score"])
    columns = metrics(tmp_path / "run" / "ablation" / "only-feature")[0]
    assert "kd_feature" in columns
    assert "kd_logits" not in columns
    # Where no features are compared, the gradients' ratio is taken at the outputs.
    assert float(metrics(tmp_path / "run" / "ablation" / "only-logits")[1]["kd_ratio"]) > 0
    assert (tmp_path / "run" / "ablation" / "ablation.md").read_text().startswith("| losses | accuracy | std |")

    def train_again(*_arguments: object, **_keywords: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("featherpress.compress.training.trainer.Trainer._step", train_again)
    assert ablate_losses(recipe, tmp_path / "run") == shown


COST = {"total": {"macs": 7}}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ((), {"audits": {"student": COST}}),
        (("student.settings={width=12,classes=3}", "student.prune={params='500'}"), {"audit": lambda _student: COST}),
    ],
    ids=["whole", "pruned"],
)
def test_an_ablation_keeps_what_was_counted(
    tiny: Callable[..., Recipe], tmp_path: Path, settings: tuple[str, ...], told: Any
) -> None:
    """Adapters stay in `budget.json`, and each set of losses knows what its student costs, one that is cut here too."""
    ablate_losses(tiny(*settings), tmp_path / "run", **told)
    budget = json.loads((tmp_path / "run" / "budget.json").read_text())
    assert (budget["student"], budget["adapters"]["params"] > 0) == (COST, True)
    records = [tmp_path / "run" / "ablation" / f"only-{name}" / "eval" for name in ("logits", "feature")]
    assert [json.loads((each / "validation.json").read_text())["macs"] for each in records] == [7, 7]


def test_few_calls_lie_between_the_command_and_a_loss(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who follows `featherpress distill` to the loss that it computes passes five functions, the command the first."""
    stacks, compute = [], registry._REGISTER["kl"].function

    def note(*tensors: torch.Tensor, **options: Any) -> torch.Tensor:
        frames = [frame for frame, _line in traceback.walk_stack(sys._getframe(1))]
        ours = [frame.f_code for frame in frames if frame.f_globals["__name__"].startswith("featherpress.")]
        stacks.append([code.co_name for code in reversed(ours) if not code.co_name.startswith("<")])
        return compute(*tensors, **options)

    tiny()
    monkeypatch.setitem(registry._REGISTER, "kl", replace(registry._REGISTER["kl"], function=note))
    command = ["distill", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "run"), "--no-preflight"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert stacks[0] == ["distill", "distill", "run", "_step", "loss"]


def test_an_ablation_asks_a_cached_teacher_once(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variants of a seed that tap the teacher at the same places share its outputs; no seed takes those of another."""
    asked: list[int] = []
    ask = BoundTeacher.ask

    def count(self: BoundTeacher, inputs: Any, *, watch: bool = False) -> TeacherOutputs:
        if not watch:  # the example's
            asked.append(len(self.taps))
        return ask(self, inputs, watch=watch)

    once = ["distillation.stop=0", "distillation.losses.feature.start=0", "distillation.losses.third.loss=kl"]
    recipe = tiny("teacher.cache=true", "seeds=[0, 1]", *once)
    distill(recipe, tmp_path / "run")
    monkeypatch.setattr(BoundTeacher, "ask", count)
    ablate_losses(recipe, tmp_path / "run")
    # The first of a kind asks at each of three steps; the others ask at their first, to learn what outputs look like.
    assert asked == [0, 0, 0, 1, 1, 1, 0, 1, 0, 1] * 2
    assert not list((tmp_path / "run" / "ablation").glob("cache*"))


def test_ablation_needs_two_losses(tiny: Callable[..., Recipe]) -> None:
    """With one loss there is nothing to take apart."""
    with pytest.raises(UsageError, match="needs two losses or more with a weight above 0; tiny has 1"):
        variants(tiny("distillation.losses.feature.weight=0"))


def test_ablation_tables() -> None:
    """The table lines up for a terminal and is a table in Markdown; the control has no difference."""
    rows = [
        ablation.Row(losses="none", score=0.5, std=None, verdict="the control"),
        ablation.Row(
            losses="only feature", score=0.625, std=0.01, difference=0.125, low=0.1, high=0.15, verdict="better"
        ),
    ]
    assert ablation_lines(rows, metric="AP") == [
        "losses           AP    std  difference      low     high  verdict",
        "none          0.500                                       the control",
        "only feature  0.625  0.010     +0.1250  +0.1000  +0.1500  better",
    ]
    assert ablation_markdown(rows, metric="AP").splitlines()[1] == "| --- | ---: | ---: | ---: | ---: | ---: | --- |"


def test_commands(tiny: Callable[..., Recipe], run_command: Callable[..., Any]) -> None:
    """`distill --ablate losses` prints the table, resumes, and refuses one arm alone; `--schema` is the shipped one."""
    assert tiny().name == "tiny"
    ablating = ("distill", "tiny.toml", "--ablate", "losses", "--out", "run")
    ending = run_command(*ablating)
    assert ending.code == 0, ending.err
    lines = ending.out.splitlines()
    assert [line.split("  ")[0] for line in lines[:5]] == ["losses", "none", "all", "only logits", "only feature"]
    assert max(map(len, lines)) <= 80
    assert lines[5].startswith("Verdicts are adjusted")
    assert lines[6] == "distilled: run; `featherpress report run` writes it up"
    assert "preflight: 10 checks passed" in ending.err
    again = run_command(*ablating, "--resume")
    assert again.out == ending.out
    refused = run_command(*ablating, "--arm", "student", "--resume")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "leave --arm out" in refused.err
    assert run_command("distill", "--schema").out == recipe_schema()
