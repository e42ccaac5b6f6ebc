"""Classification on folders: weights, teachers of other sizes, unlabelled images, records, runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from featherpress.compress.evaluation.metrics.accuracy import ClassPredictions
from featherpress.compress.experiments.distill import distill
from featherpress.compress.experiments.estimate import estimate
from featherpress.compress.recipes import Recipe, load_recipe, recipe_to_toml
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.classification.base import ClassificationTask
from featherpress.compress.training.trainer import Trainer
from featherpress.errors import DataError, RecipeError, TrainingError, UsageError
from featherpress.models.saving import read_metadata
from featherpress.records.evaluation import TaskEvaluation
from featherpress.records.run import Pictures

TINY = Path(__file__).parents[1] / "experiments" / "tiny_models.py"

RECIPE = """
name = "folders"

[student]
model = "tiny_models:net"
settings = { classes = 2 }

[teacher]
model = "tiny_models:net"
settings = { classes = 2, width = 12 }
size = 80
normalize = { mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }

[teacher.schedule]
epochs = 1
batch_size = 4

[data]
kind = "folder"
root = "data"
size = 64

[schedule]
epochs = 1
batch_size = 4
log_every = 1

[distillation]
ramp_steps = 1
stop = 0

[distillation.losses.class]
loss = "kl"
"""


def draw(folder: Path, count: int, colour: int, *, seed: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = random.integers(0, 120, (70 + number, 90, 3), dtype=np.uint8)
        pixels[..., colour] += 100
        Image.fromarray(pixels).save(folder / f"{number}.jpg")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """A recipe on folders of red and blue noise, in a folder where tiny models are found."""
    shutil.copy(TINY, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("featherpress.compress.tasks.classification.base._BETTER_THAN_CHANCE", 0.0)
    for split, counts in {"train": (9, 3), "val": (4, 2)}.items():
        for number, name in enumerate(("blue", "red")):
            draw(tmp_path / "data" / split / name, counts[number], 2 - 2 * number, seed=counts[number] + number)
    (tmp_path / "folders.toml").write_text(RECIPE)
    return lambda *settings: load_recipe(tmp_path / "folders.toml", settings=settings)


def task(recipe: Recipe) -> ClassificationTask:
    found = task_of(recipe)
    assert isinstance(found, ClassificationTask)
    return found


def test_a_whole_run(folders: Callable[..., Recipe], tmp_path: Path) -> None:
    """Teacher, student and control are trained and scored; the record is any task's; weights know their classes."""
    distill(folders(), tmp_path / "run")
    record = TaskEvaluation.load(tmp_path / "run" / "eval" / "validation.json")
    assert (record.metric.name, record.data.images) == ("accuracy", 6)
    assert [(each.name, each.examples) for each in record.by_class] == [("blue", 4), ("red", 2)]
    assert sum(map(sum, record.confusion)) == 6
    assert record.score == pytest.approx(sum(record.confusion[row][row] for row in (0, 1)) / 6)
    assert (tmp_path / "run" / "control" / "eval" / "validation.json").exists()
    written = json.loads(read_metadata(tmp_path / "run" / "weights" / "last.safetensors")["input"])
    assert written["classes"] == ["blue", "red"]
    assert written["size"] == 64
    assert written["mean"] == [0.485, 0.456, 0.406]


def test_a_run_goes_on_where_it_was(
    folders: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that is interrupted between epochs ends with the weights of one that was not."""
    recipe = folders("schedule.epochs=2", "data.variants=2", "control=false", "schedule.save_every=0")
    distill(recipe, tmp_path / "whole")
    step, taken = Trainer._step, []

    def stop(self: Trainer, *given: Any, **named: Any) -> Any:
        taken.append(self.label)
        if taken.count("student") == 5:
            raise KeyboardInterrupt
        return step(self, *given, **named)

    monkeypatch.setattr(Trainer, "_step", stop)
    with pytest.raises(TrainingError, match="stopped at step 4 of 6"):
        distill(recipe, tmp_path / "half")
    distill(recipe, tmp_path / "half")
    whole, half = (load_file(tmp_path / run / "weights" / "last.safetensors") for run in ("whole", "half"))
    assert all(torch.equal(half[name], value) for name, value in whole.items())


def test_class_weights(folders: Callable[..., Recipe]) -> None:
    """The cross-entropy is torch's own weighted mean; `balanced` counts training images."""
    balanced = task(folders('data.class_weights="balanced"'))
    assert balanced.class_weights() is not None
    assert torch.allclose(balanced.class_weights(), torch.tensor([12 / 18, 12 / 6]))
    given = task(folders("data.class_weights=[1, 3]"))
    logits, labels = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 0])
    for each, weight in ((given, [1.0, 3]), (balanced, [12 / 18, 2]), (task(folders()), [1.0, 1])):
        batch: Any = None
        loss = each.compute_loss({"logits": logits}, batch, labels, each.normalizers(labels)).terms["class"]
        assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels, torch.tensor(weight)).item())
    with pytest.raises(UsageError, match="`class_weights` has 3 numbers for 2 classes"):
        task(folders("data.class_weights=[1, 3, 2]")).class_weights()


def test_unlabelled_images_have_the_teachers_class(folders: Callable[..., Recipe], tmp_path: Path) -> None:
    """They come on top of every batch; the cross-entropy leaves them out, and the context has the teacher's class."""
    draw(tmp_path / "wild", 5, 0, seed=9)
    (tmp_path / "wild" / "2a.jpg").write_bytes(b"nothing")
    recipe = folders("data.unlabelled.root=wild", "data.unlabelled.per_batch=2")
    (tmp_path / "again.toml").write_text(recipe_to_toml(recipe))
    assert load_recipe(tmp_path / "again.toml") == recipe
    own = task(recipe)
    teacher = own.build("tiny_models:net", {"classes": 2}, size=80).eval()
    training = own.open("train")
    crops = own.unlabelled_crops(training, 0, teacher=teacher, out=tmp_path)
    batch = crops.batch(crops.sampler.epoch_batches(0, 4)[0])
    assert (batch.labels[:4] >= 0).all()
    assert (batch.labels[4:] < 0).all()
    said = json.loads((tmp_path / "labels.json").read_text())["labels"]
    assert len(said) == 5
    known = own.classes.index(said["0.jpg"])
    assert int(crops.crop(len(training), 0).target["labels"] if "0.jpg" in said else 0) == -1 - known
    logits = torch.randn(6, 2)
    loss = own.compute_loss({"logits": logits}, batch, batch.labels, own.normalizers(batch.labels))
    expected = torch.nn.functional.cross_entropy(logits[:4], batch.labels[:4])
    assert loss.terms["class"] == pytest.approx(expected.item())
    assert (loss.context["labels"] >= 0).all()
    assert loss.context["labels"][4:].tolist() == (-1 - batch.labels[4:]).tolist()
    control = own.unlabelled_crops(training, 0, teacher=None, out=tmp_path)
    plain = control.batch(control.sampler.epoch_batches(0, 4)[0])
    assert len(plain) == 6
    assert (plain.labels >= 0).all()
    distill(recipe, tmp_path / "run")


def test_a_teacher_sees_its_own_size(folders: Callable[..., Recipe]) -> None:
    """A teacher of another size is trained, scored and asked at that size."""
    own = task(folders())
    teacher = own.build("tiny_models:net", {"classes": 2}, size=80)
    student = own.build("tiny_models:net", {"classes": 2})
    batch = own.batch(own.open("val"), [0, 1])
    assert own.images(batch, student).shape == (2, 3, 64, 64)
    assert own.images(batch, teacher).shape == (2, 3, 80, 80)
    asked = own.teacher_inputs(student, teacher)(own.images(batch, student))
    assert torch.allclose(asked, own.images(batch, teacher), atol=1e-4)
    seen = []
    teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    own.evaluate(teacher, own.open("val"), label="teacher")
    assert set(seen) == {80}


def test_evaluate_on_a_folder(folders: Callable[..., Recipe], tmp_path: Path, run_command: Callable[..., Any]) -> None:
    """The weights that a run writes score by command as they did in the run; mistakes are one sentence."""
    plain = ("data.validation=[{Resize=73}, {CenterCrop=64}]", "control=false", "seeds=[0]", "schedule.epochs=4")
    distill(folders(*plain), tmp_path / "run")
    weights = tmp_path / "run" / "weights" / "last.safetensors"
    told = ["evaluate", "tiny_models:net", "--weights", str(weights), "--data", "data", "--out", "scored"]
    done = run_command(*told)
    assert done.code == 0, done.err
    written = TaskEvaluation.load(tmp_path / "scored" / "evaluation.json")
    there = TaskEvaluation.load(tmp_path / "run" / "eval" / "validation.json")
    assert (written.score, written.confusion) == (there.score, there.confusion)
    assert f"accuracy {there.score:.4f} on 6 images of 2 classes" in done.out
    assert (tmp_path / "scored" / "confusion.png").stat().st_size > 1000
    assert run_command(*told[:-2], "--json").code == 0
    alone = run_command("evaluate", "--weights", str(weights), "--data", "data")
    assert (alone.code, "is of the classifier tiny_models:net; name it too" in alone.err) == (2, True)
    (tmp_path / "data" / "val" / "red").rename(tmp_path / "data" / "val" / "rad")
    other = run_command(*told[:-2])
    assert (other.code, "no class is called 'rad'; did you mean 'red'?" in other.err) == (2, True)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (
            'model = "torchvision.models:mobilenet_v3_small"\nsettings = { num_classes = 2 }',
            'model = "torchvision.models:resnet50"\nsettings = { num_classes = 2 }',
        ),
        (
            'model = "timm:create_model"\nsettings = { model_name = "test_resnet", num_classes = 2 }',
            'model = "timm:create_model"\nsettings = { model_name = "test_vit2", num_classes = 2, img_size = 80 }',
        ),
    ],
    ids=["torchvision", "timm"],
)
def test_other_packages_models_on_both_sides(
    folders: Callable[..., Recipe], tmp_path: Path, student: str, teacher: str
) -> None:
    """A few steps between torchvision's models, and between timm's: the teacher of another size and normalisation."""
    pytest.importorskip("timm")
    text = RECIPE.replace('model = "tiny_models:net"\nsettings = { classes = 2 }', student)
    text = text.replace('model = "tiny_models:net"\nsettings = { classes = 2, width = 12 }', teacher)
    (tmp_path / "pair.toml").write_text(text)
    recipe = load_recipe(tmp_path / "pair.toml", settings=["control=false"])
    assert "tiny" not in recipe.student.model + str(recipe.teacher)
    distill(recipe, tmp_path / "run")
    assert TaskEvaluation.load(tmp_path / "run" / "eval" / "validation.json").data.images == 6


def test_top_five_and_confusion() -> None:
    """Top-5 counts a label among the first five logits; rows of the confusion matrix are labels."""
    from featherpress.compress.data.examples import Example
    from featherpress.compress.data.transforms import Transforms
    from featherpress.compress.tasks.classification.scoring import predict_classes, score_fields
    from featherpress.models.inputs import ModelInput

    class Six:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Example:
            image = torch.full((3, 8, 8), index, dtype=torch.uint8)
            return Example(image=image, target={"labels": torch.tensor([5, 1, 0][index])}, name=f"{index}")

    class Says(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.tensor([6.0, 5, 4, 3, 2, 1]))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.bias.expand(len(images), -1)

    prepare = Transforms((), kind="label", height=8, width=8, source=(8, 8))
    found, skipped = predict_classes(Says(), Six(), range(3), prepare=prepare, takes=ModelInput())
    record = score_fields(found, "abcdef")
    assert (found.accuracy, record["further"], skipped) == (1 / 3, {"top-5 accuracy": 2 / 3}, 0)
    assert [row[0] for row in record["confusion"]] == [1, 1, 0, 0, 0, 1]
    assert [each["score"] for each in record["by_class"]] == [1.0, 0.0, None, None, None, 0.0]


def test_several_roots_are_joined(folders: Callable[..., Recipe], tmp_path: Path) -> None:
    """Training images of all roots; validation images of one; classes must agree."""
    shutil.copytree(tmp_path / "data", tmp_path / "more")
    recipe = folders('data.root=["data", "more"]')
    assert len(task(recipe).open("train")) == 24
    assert len(task(recipe).open("val")) == 6
    assert task(recipe).described() == {"roots": ["data", "more"]}
    (tmp_path / "more" / "train" / "red").rename(tmp_path / "more" / "train" / "rad")
    with pytest.raises(DataError, match=r"the class 'red' has a folder in data.train and none in more.train"):
        task(recipe).open("train")


def test_held_out_images_are_not_trained_on(folders: Callable[..., Recipe]) -> None:
    """`holdout` is spread over the classes, and left out of training."""
    own = task(folders("data.holdout=4"))
    rest, held = (own.open(split) for split in ("train", "holdout"))
    names = [{data.name(row) for row in range(len(data))} for data in (rest, held)]
    assert (len(names[0]), len(names[1])) == (8, 4)
    assert not names[0] & names[1]
    assert {name.split("/")[0] for name in names[1]} == {"blue", "red"}


def test_broken_validation_images_are_counted(folders: Callable[..., Recipe], tmp_path: Path) -> None:
    """They are skipped, and the record says how many."""
    (tmp_path / "data" / "val" / "red" / "0.jpg").write_bytes(b"nothing")
    own = task(folders())
    record = own.evaluate(own.build("tiny_models:net", {"classes": 2}), own.open("val"), label="x").record
    assert (record["data"]["images"], record["data"]["skipped"]) == (5, 1)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('data.train=["Flip"]', "data: `train`: torchvision has no transform 'Flip' for images"),
        ("data.train=[{Resize=64}]", "data: `train`: the transforms make a trial image "),
        ("data.validation=[{CenterCrop=32}]", "`validation`: the transforms make a trial image 32 x 32 x 3 of uint8"),
        ("data.root=''", "folder data needs a `root`"),
        ("data.class_weights=heavy", "data.class_weights"),
        ("data.unlabelled={root='x', long_side=640}", "`unlabelled.long_side` is for boxes"),
        ("data.clases=['a', 'b']", "unknown key 'clases' in data; did you mean 'classes'?"),
    ],
)
def test_options_that_cannot_be_used_are_one_sentence(folders: Callable[..., Recipe], setting: str, said: str) -> None:
    """They are found out as the recipe is read."""
    with pytest.raises(RecipeError) as caught:
        folders(setting)
    assert said in str(caught.value)


def test_a_model_of_other_classes_is_refused(folders: Callable[..., Recipe]) -> None:
    """The sentence says how many classes there are."""
    with pytest.raises(UsageError, match=r"gives \(1, 3\) for one image, expected logits \(1, 2\)"):
        task(folders()).build("tiny_models:net", {})


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_model_that_fails_on_an_image_is_refused(folders: Callable[..., Recipe]) -> None:
    """A width of 0 builds, and no image goes through: one sentence, before anything is trained."""
    with pytest.raises(UsageError, match="tiny_models:net fails on an image of 64 x 64 pixels"):
        task(folders()).build("tiny_models:net", {"classes": 2, "width": 0})


def test_digits_are_read() -> None:
    """Every fourth of scikit-learn's digits is for validation; white on black, 0 to 255."""
    pytest.importorskip("sklearn")
    own = task(load_recipe("digits", settings=['data={ kind = "digits" }']))
    training, validation = own.open("train"), own.open("val")
    assert (len(training), len(validation)) == (1347, 450)
    assert training[0].name == "1/0001"
    assert int(training[0].target["labels"]) == 1
    assert training[0].image.shape == (3, 8, 8)
    assert int(torch.stack([training[row].image for row in range(20)]).max()) == 255
    assert own.batch(validation, [0]).images.shape[-1] == own.data.size
    assert own.teacher_images(training) is training


def test_of_few_digits_the_labels_are_known(tmp_path: Path) -> None:
    """The others come on top of a batch without theirs, which only the teacher has learned; the control sees none."""
    pytest.importorskip("sklearn")
    recipe = load_recipe("digits")
    (tmp_path / "again.toml").write_text(recipe_to_toml(recipe))
    assert load_recipe(tmp_path / "again.toml") == recipe
    own = task(recipe)
    training, (others,) = own.open("train"), own.unlabelled_images()
    names = [{each.name(row) for row in range(len(each))} for each in (training, others)]
    everything = own.teacher_images(training)
    assert (len(training), len(others), len(everything)) == (50, 1297, 1347)
    assert not names[0] & names[1]
    assert not names[1] & {own.open("val").name(row) for row in range(450)}
    assert names[0] | names[1] == {everything.name(row) for row in range(1347)}
    teacher = own.build("featherpress.models.small:small_classifier", {"width": 4})
    crops = own.unlabelled_crops(training, 0, teacher=teacher, out=tmp_path)
    labels = crops.batch(crops.sampler.epoch_batches(0, 50)[0]).labels
    assert labels.shape == (50 + 64,)
    assert (labels[:50] >= 0).all()
    assert (labels[50:] < 0).all()
    control = own.unlabelled_crops(training, 0, teacher=None, out=tmp_path)
    batch = control.batch(control.sampler.epoch_batches(0, 50)[0])
    assert (batch.labels >= 0).all()
    assert int(batch.keys[:, 0].max()) < 50
    sized = estimate(own.recipe)
    assert sized is not None
    assert (sized.training, sized.photographs, sized.steps, sized.teacher_steps) == (
        50,
        1297,
        100,
        {0: 8 * (1347 // 50)},
    )
    for change, words in (
        ("data.train_images=0", "which then is 1 to 1,346"),
        ("data.unlabelled.root=x", "beyond `train_images`, and take no `root`"),
    ):
        with pytest.raises(RecipeError, match=words):
            load_recipe("digits", settings=[change])


def test_a_softmax_is_not_compared_as_sigmoids() -> None:
    """`binary` is for heads of a sigmoid for each class: for a classifier it is one sentence with what to use."""
    recipe = load_recipe("digits", settings=["distillation.losses.class={ loss = 'binary' }"])
    with pytest.raises(
        UsageError, match=r"`distillation.losses.class`: the head .* has a softmax over classes; use kl"
    ):
        task(recipe).build(recipe.student.model, recipe.student.settings)


def test_the_surest_wrong_answers_are_pictures(folders: Callable[..., Recipe], tmp_path: Path) -> None:
    """Where a pupil is wrong, the surest first: the image and its class, and each model's answer and probability."""
    ours = task(folders())
    validation = ours.open("val")
    names = tuple(validation.name(index) for index in range(6))
    labels = np.array([0, 0, 0, 0, 1, 1])

    def says(wrong: dict[int, float]) -> ClassPredictions:
        answers = [1 - label if place in wrong else label for place, label in enumerate(labels)]
        sure = np.array([wrong.get(place, 0.99) for place in range(6)])
        return ClassPredictions(names=names, labels=labels, predicted=np.array(answers), probability=sure)

    found = {"teacher": says({1: 0.97, 3: 0.6}), "student": says({3: 0.7, 4: 0.8}), "control": says({3: 0.9, 5: 0.6})}
    found["student"].save(tmp_path / "saved.npz")
    ours.show(tmp_path / "gallery", validation, found | {"student": ours.load(tmp_path / "saved.npz")})
    pictures = Pictures.load(tmp_path / "gallery" / "pictures.json")
    assert [row.file for row in pictures.images] == [names[3], names[4], names[5]]
    shown = {panel.name: panel.text for panel in pictures.images[0].panels}
    assert shown == {"truth": "blue", "teacher": "✗ red\n60.0%", "student": "✗ red\n70.0%", "control": "✗ red\n90.0%"}
    assert pictures.images[1].panels[3].text == "✓ red\n99.0%"
    with Image.open(tmp_path / "gallery" / pictures.images[0].panels[0].file) as saved:
        assert saved.size == (90, 73)  # the fourth of the blue ones
    ours.show(tmp_path / "none", validation, {"teacher": says({0: 0.9}), "student": says({})})
    assert not (tmp_path / "none").exists()


def test_probabilities_are_those_of_the_answers(folders: Callable[..., Recipe]) -> None:
    """What is kept beside an answer is the softmax of its logit."""
    ours = task(folders())
    model, validation = ours.build("tiny_models:net", {"classes": 2}), ours.open("val")
    found = ours.evaluate(model, validation, label="").predictions
    logits = model.eval()(ours.images(ours.batch(validation, range(6)), model)).softmax(1)
    assert np.allclose(found.probability, logits.amax(1).detach().numpy(), atol=1e-6)
    assert (found.predicted == logits.argmax(1).numpy()).all()
