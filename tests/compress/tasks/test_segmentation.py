"""Segmentation: outputs by name, the loss, what is ignored, scores at an image's own size, pictures, drawn labels."""

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.compress.data.examples import Example
from featherpress.compress.distillation.teachers import TeacherOutputs
from featherpress.compress.evaluation.score_listing import render_score
from featherpress.compress.experiments.distill import check, describe_left_out
from featherpress.compress.experiments.evaluating import evaluate_weights
from featherpress.compress.experiments.preflight import check_data, preflight
from featherpress.compress.experiments.teachers import make_distiller
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.segmentation.inference import measure_masks
from featherpress.compress.tasks.segmentation.labelling import label_images
from featherpress.compress.tasks.segmentation.task import SegmentationTask
from featherpress.errors import DataError, RecipeError, UsageError
from featherpress.models import save_weights
from featherpress.models.inputs import ModelInput, remember_input
from featherpress.records.evaluation import TaskEvaluation
from featherpress.records.run import Pictures

RECORDS = {
    "teacher": "eval/teacher.json",
    "control": "control/eval/validation.json",
    "student": "eval/validation.json",
}
COLOURS = np.array([[220, 30, 30], [30, 220, 30], [30, 30, 220]], np.uint8)
RECIPE = """
name = "colours"
[student]
model = "featherpress.models.unet:unet"
settings = { classes = 3, width = 4 }
[teacher]
model = "featherpress.models.unet:unet"
settings = { classes = 3, width = 8 }
schedule = { epochs = 1, batch_size = 2 }
[data]
kind = "masks"
root = "data"
classes = ["red", "green", "blue"]
ignore = 9
size = 64
[schedule]
epochs = 1
batch_size = 2
[distillation]
ramp_steps = 1
[distillation.losses]
pixels = { loss = "kl" }
features = { loss = "cwd", student = "decoder.0", teacher = "decoder.0" }
"""


def draw(folder: Path, name: str, number: int, *, height: int = 72, width: int = 90) -> None:
    """Save blocks of three colours and a mask of their numbers, a band of which is ignored."""
    random = np.random.default_rng(number)
    blocks = random.integers(0, 3, (height // 18, width // 18)).repeat(18, axis=0).repeat(18, axis=1)
    mask = blocks.astype(np.uint8)
    mask[:10] = 9
    for kind, pixels in (("images", COLOURS[blocks]), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / f"{name}.png")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """A recipe for six images of coloured blocks, and three to validate on."""
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 6), ("val", 3)):
        for number in range(count):
            draw(tmp_path / "data" / split, str(number), number + 10 * (split == "val"))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return lambda *settings: load_recipe(tmp_path / "recipe.toml", settings=settings)


class ByColour(nn.Module):
    """Says which colour is the strongest, at a quarter of the size, or wrongly that all is of one class."""

    def __init__(self, *, always: int | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.always = always
        remember_input(self, ModelInput(mean=(0, 0, 0), std=(1, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        logits = self.scale * images
        if self.always is not None:
            logits = F.one_hot(torch.full_like(images[:, 0], self.always).long(), 3).movedim(-1, 1) * self.scale
        return F.avg_pool2d(logits, 2)


class Auxiliary(nn.Module):
    """Gives what torchvision's models give: a dictionary, with a second output in training."""

    def __init__(self, *, names: tuple[str, ...] = ("out", "aux")) -> None:
        super().__init__()
        self.names, self.layer = names, nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {name: self.layer(images) * (number + 1) for number, name in enumerate(self.names)}


def test_outputs_have_names_and_the_size_of_the_images(recipe: Callable[..., Recipe]) -> None:
    """A tensor is logits, torchvision's dictionary is logits and auxiliary ones; both are interpolated."""
    task = task_of(recipe())
    assert {k: tuple(v.shape) for k, v in task.name_outputs(torch.zeros(2, 3, 8, 8)).items()} == {
        "logits": (2, 3, 64, 64)
    }
    named = task.name_outputs(Auxiliary()(torch.rand(1, 3, 64, 64)))
    assert set(named) == {"logits", "auxiliary"}
    assert torch.equal(named["auxiliary"], 2 * named["logits"])
    with pytest.raises(UsageError, match="a dictionary with `out`, got one with masks, boxes"):
        task.name_outputs({"masks": 1, "boxes": 2})
    ramp = torch.arange(8.0).expand(1, 3, 8, 8)
    expected = F.interpolate(ramp, size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(task.name_outputs(ramp)["logits"], expected)


def test_the_loss_is_over_labelled_pixels(recipe: Callable[..., Recipe]) -> None:
    """The mean cross-entropy of the pixels that count, times its weight; the auxiliary one by half unless told."""
    task = task_of(recipe("losses.classification=3"))
    batch = task.crops(task.open("train"), 0).batch([(0, 0), (1, 0)])
    targets = task.assign_targets(batch, nn.Identity())
    assert (batch.masks == 255).any()
    assert ((targets == -100) == (batch.masks == 255)).all()
    outputs = {name: torch.randn(2, 3, 64, 64) for name in ("logits", "auxiliary")}
    loss = task.compute_loss(outputs, batch, targets, task.normalizers(targets))
    plain = {name: float(F.cross_entropy(logits, targets)) for name, logits in outputs.items()}
    assert {name: float(value) for name, value in loss.terms.items()} == pytest.approx(
        {"class": 3 * plain["logits"], "auxiliary": 0.5 * plain["auxiliary"]}
    )
    assert torch.equal(loss.context["labels"], targets)
    assert torch.equal(loss.context["mask"], batch.masks != 255)
    nothing = torch.full_like(targets, -100)
    empty = task.compute_loss(outputs, batch, nothing, task.normalizers(nothing).clamp(min=1))
    assert float(empty.terms["class"]) == 0


def test_classes_weigh_what_the_recipe_says(recipe: Callable[..., Recipe]) -> None:
    """A number a class, or balanced by the pixels of the training masks; normalised by the weights that were met."""
    for setting, given in (("[1, 2.5, 4]", [1, 2.5, 4]), ("balanced", None)):
        task = task_of(recipe(f"data.class_weights={setting}"))
        assert isinstance(task, SegmentationTask)
        masks = torch.cat([task.open("train")[index].target["masks"].flatten() for index in range(6)])
        counts = torch.bincount(masks, minlength=256)[:3]
        expected = torch.tensor(given) if given else counts.sum() / 3 / counts
        batch = task.crops(task.open("train"), 0).batch([(0, 0), (1, 0)])
        targets, logits = task.assign_targets(batch, nn.Identity()), torch.randn(2, 3, 64, 64)
        loss = task.compute_loss({"logits": logits}, batch, targets, task.normalizers(targets)).terms["class"]
        assert float(loss) == pytest.approx(float(F.cross_entropy(logits, targets, expected)))


def test_a_teacher_of_larger_images(recipe: Callable[..., Recipe]) -> None:
    """With `teacher.size` it sees images larger, in training, when it teaches and when it is scored."""
    used = recipe("teacher.size=128")
    task, own = task_of(used), used.all_teachers[0]
    student = task.build(used.student.model, used.student.settings)
    teacher = task.build(own.model, own.settings, size=own.size)
    batch = task.crops(task.open("train"), 0).batch([(0, 0)])
    assert task.images(batch, teacher).shape[-2:] == (128, 128)
    assert task.teacher_inputs(student, teacher)(task.images(batch, student)).shape[-2:] == (128, 128)
    seen: list[Any] = []
    teacher.register_forward_pre_hook(lambda _model, given: seen.append(tuple(given[0].shape[-2:])))
    task.evaluate(teacher, task.open("val"), label="", images=1)
    assert seen == [(144, 180)]


@pytest.mark.parametrize(
    "term",
    [
        {"pixels": {"loss": "kl"}},
        {"pixels": {"loss": "dkd"}},
        {"pixels": {"loss": "dist"}},
        {"features": {"loss": "cwd", "student": "encoder.0", "teacher": "encoder.0"}},
        {"features": {"loss": "fitnets", "student": "encoder.0", "teacher": "encoder.0"}},
    ],
)
def test_ignored_pixels_make_no_difference_to_distillation(
    recipe: Callable[..., Recipe], term: Mapping[str, Mapping[str, str]]
) -> None:
    """Whatever the teacher says there, or its features are; elsewhere they do."""
    (name, options), *_ = term.items()
    table = ", ".join(f'{key} = "{value}"' for key, value in options.items())
    used = recipe(f"distillation.losses={{ {name} = {{ {table} }} }}")
    task = task_of(used)
    student, teacher = (task.build(each.model, each.settings) for each in (used.student, used.all_teachers[0]))
    student.eval()
    batch = task.crops(task.open("train"), 0).batch([(0, 0), (1, 0)])
    masks = batch.masks.clone()
    masks[:, :16] = 255
    masks[:, 16:] = masks[:, 16:].clamp(max=2)
    targets = task.assign_targets(type(batch)(images=batch.images, keys=batch.keys, masks=masks), student)
    distiller = make_distiller(used, {"teacher": teacher.eval()}, student, task=task, seed=0)

    def loss(rows: slice) -> float:
        images = task.images(batch, student)
        kd = distiller.kd
        answers = kd.teachers["teacher"].ask(images)
        changed = []
        for each in answers.tensors():
            step = 64 // each.shape[-2]
            other = each.clone()
            other[..., rows.start // step : rows.stop // step, :] += 5 * torch.rand(1, each.shape[1], 1, 1)
            changed.append(other)
        told: TeacherOutputs = answers.filled(changed)
        with kd.step(images, teacher_outputs=told) as step_taken:
            outputs = task.name_outputs(student(images))
        context = task.compute_loss(outputs, batch, targets, task.normalizers(targets)).context
        return float(step_taken.loss(outputs, **context).detach())

    torch.manual_seed(0)
    plain, ignored, counted = (loss(rows) for rows in (slice(0, 0), slice(0, 16), slice(32, 64)))
    assert plain > 0
    assert ignored == pytest.approx(plain, rel=1e-6)
    assert counted != pytest.approx(plain, rel=1e-4)


def test_a_model_is_scored_at_an_images_own_size(recipe: Callable[..., Recipe]) -> None:
    """Blocks of colour are told apart at 72 x 90 pixels, though logits are half as large; only labels count."""
    task = task_of(recipe())
    model = ByColour().train()
    result = task.evaluate(model, task.open("val"), label="", about={"model": "by colour", "params": 1})
    assert model.training
    assert result.score > 0.9
    assert result.predictions.labelled.sum() == 3 * 62 * 90
    record = TaskEvaluation.model_validate(result.record)
    assert result.record["data"]["roots"] == ["data"]
    assert (record.metric.name, record.data.images, record.score) == ("mIoU", 3, result.score)
    assert [each.name for each in record.by_class] == ["red", "green", "blue"]
    assert sum(each.examples for each in record.by_class) == 3 * 62 * 90 == sum(map(sum, record.confusion))
    assert record.further["pixel accuracy"] == pytest.approx(np.trace(record.confusion) / (3 * 62 * 90))
    assert task.evaluate(ByColour(always=1), task.open("val"), label="", images=1).score < task.min_teacher_score


def test_the_scale_at_test_is_the_recipes(recipe: Callable[..., Recipe]) -> None:
    """`long_side` is what the model sees; masks are scored at their own size all the same."""
    seen = []

    class Watching(ByColour):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(tuple(images.shape[-2:]))
            return super().forward(images)

    task = task_of(recipe("data.long_side=180"))
    result = task.evaluate(Watching(), task.open("val"), label="", images=1)
    assert seen == [(144, 180)]
    assert result.predictions.labelled.sum() == 62 * 90


def test_broken_images_are_left_out_and_counted(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """One that breaks after the check is skipped; where all are broken that is an error."""
    task = task_of(recipe())
    for number, left in ((0, 2), (1, 1)):
        (tmp_path / "data" / "val" / "images" / f"{number}.png").write_bytes(b"broken")
        result = task.evaluate(ByColour(), task.open("val"), label="")
        assert (result.record["data"]["images"], result.record["data"]["skipped"]) == (left, 3 - left)
    (tmp_path / "data" / "val" / "images" / "2.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="all 3 are broken"):
        task.evaluate(ByColour(), task.open("val"), label="")


def test_memory_does_not_grow_with_the_images() -> None:
    """Images are read one at a time, and nothing of one is kept but its counts, apart from a few masks to look at."""
    alive: list[Any] = []

    class Counting:
        """Twenty images, of which at most two are alive at once."""

        def __len__(self) -> int:
            return 20

        def name(self, index: int) -> str:
            return str(index)

        def __getitem__(self, index: int) -> Example:
            import weakref

            image = torch.zeros(3, 16, 16, dtype=torch.uint8)
            alive.append(weakref.ref(image))
            assert sum(each() is not None for each in alive) <= 2
            return Example(image=image, target={"masks": torch.zeros(16, 16, dtype=torch.uint8)}, name=str(index))

    found = measure_masks(ByColour(), Counting(), range(20), takes=ModelInput(), classes=("a", "b", "c"))
    assert len(found.names) == 20
    assert sorted(found.shown, key=int) == ["0", "4", "8", "11", "15", "19"]


def test_pictures_stand_side_by_side(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """Image, truth and every model's mask, in the legend's colours, black where nothing counts."""
    task = task_of(recipe())
    validation = task.open("val")
    found = {
        role: task.evaluate(model, validation, label="").predictions
        for role, model in (("teacher", ByColour()), ("control", ByColour(always=0)), ("student", ByColour(always=2)))
    }
    saved = tmp_path / "saved.npz"
    found["student"].save(saved)
    task.show(tmp_path / "gallery", validation, found | {"student": task.load(saved)})
    pictures = Pictures.load(tmp_path / "gallery" / "pictures.json")
    assert [row.file for row in pictures.images] == ["0.png", "1.png", "2.png"]
    panels = {each.name: tmp_path / "gallery" / each.file for each in pictures.images[0].panels}
    assert list(panels) == ["image", "truth", "teacher", "control", "student"]
    colours = {each.name: each.colour for each in pictures.legend}
    assert list(colours) == ["red", "green", "blue", "ignored"]
    assert len(set(colours.values())) == 4
    drawn = {role: np.asarray(Image.open(file)) for role, file in panels.items()}
    assert all(each.shape == (72, 90, 3) for each in drawn.values())
    assert f"#{drawn['truth'][0, 0].tobytes().hex()}" == colours["ignored"] == "#000000"
    assert f"#{drawn['student'][50, 50].tobytes().hex()}" == colours["blue"]
    assert (drawn["truth"][30:] == drawn["teacher"][30:]).mean() > 0.9


def test_a_teacher_draws_masks_where_it_is_sure(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """What it says is the label, ignored where it is unsure; the control gets more of the labelled images instead."""
    for number in range(2):
        draw(tmp_path / "more", str(number), 50 + number)
    half = np.full((64, 64, 3), 128, np.uint8)
    half[:, :32] = COLOURS[2]
    Image.fromarray(half).save(tmp_path / "more" / "images" / "half.png")
    (tmp_path / "more" / "images" / "broken.png").write_text("")
    used = recipe('data.unlabelled.root="more/images"', "data.unlabelled.per_batch=2")
    task = task_of(used)
    crops = task.unlabelled_crops(task.open("train"), 0, teacher=ByColour().eval(), out=tmp_path / "run")
    control = task.unlabelled_crops(task.open("train"), 0, teacher=None, out=tmp_path / "run")
    keys = {arm: made.sampler.epoch_batches(0, 2)[0] for arm, made in (("student", crops), ("control", control))}
    assert {arm: len(each) for arm, each in keys.items()} == {"student": 4, "control": 4}
    assert keys["student"][:2] == keys["control"][:2]
    assert all(index >= 6 for index, _ in keys["student"][2:])
    assert all(index < 6 for index, _ in keys["control"][2:])
    assert used.data.unlabelled is not None
    images = label_images(ByColour().eval(), used.data.unlabelled, takes=ModelInput(), out=tmp_path / "run")
    by_name = {images.name(index): index for index in range(len(images))}
    mask = images[by_name["half.png"]].target["masks"]
    assert set(mask[:, :24].unique().tolist()) == {2}
    assert set(mask[:, 40:].unique().tolist()) == {255}
    with pytest.raises(DataError):
        images[by_name["broken.png"]]
    written = sorted((tmp_path / "run" / "labels").rglob("*.png"))
    assert len(written) == 3


def test_drawn_masks_are_the_teachers_own(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """A resumed run does not ask again; another teacher, or another threshold, draws its own."""
    draw(tmp_path / "more", "0", 50)
    first = recipe('data.unlabelled.root="more/images"').data.unlabelled
    strict = recipe('data.unlabelled.root="more/images"', "data.unlabelled.positive_threshold=1").data.unlabelled
    assert first is not None
    assert strict is not None
    out, takes = tmp_path / "run", ModelInput(mean=(0, 0, 0), std=(1, 1, 1))
    file = label_images(ByColour().eval(), first, takes=takes, out=out).mask_file(0)
    written = file.stat().st_mtime_ns
    assert label_images(ByColour().eval(), first, takes=takes, out=out).mask_file(0).stat().st_mtime_ns == written
    other = ByColour().eval()
    other.scale.data += 1
    assert (
        len({label_images(*each, takes=takes, out=out).mask_file(0) for each in ((other, first), (other, strict))}) == 2
    )
    assert file.stat().st_mtime_ns == written
    several = recipe('data.unlabelled.root="more/images"', "data.unlabelled.long_side=[64, 96]").data.unlabelled
    assert several is not None
    with pytest.raises(UsageError, match="one scale"):
        label_images(other, several, takes=takes, out=out)


def test_a_run_is_checked_before_its_first_step(
    recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, print_plain: Callable[..., str]
) -> None:
    """A mask with an unknown class stops it, in either split; what is passed over is counted, in an evaluation too."""
    draw(tmp_path / "data" / "val", "lonely", 99)
    (tmp_path / "data" / "val" / "images" / "lonely.png").unlink()
    used, whole = recipe(), SegmentationTask.open
    opened: list[str] = []
    monkeypatch.setattr(SegmentationTask, "open", lambda self, split: (opened.append(split), whole(self, split))[1])
    torch.manual_seed(0)
    save_weights(task_of(used).build(used.student.model, used.student.settings), tmp_path / "w.safetensors")
    record = evaluate_weights(used, tmp_path / "w.safetensors").record
    assert record["data"]["left_out"] == {"masks in data/val/masks without an image": 1}
    assert "of the labels: 1 masks in data/val/masks without an image" in print_plain(render_score(record))
    opened.clear()
    assert check(used) == ["left out: 1 masks in data/val/masks without an image"] == describe_left_out(used)
    assert opened == ["train", "val"] * 2
    mask = tmp_path / "data" / "val" / "masks" / "1.png"
    Image.fromarray(np.full((72, 90), 3, np.uint8)).save(mask)
    with pytest.raises(DataError, match=r"data/val/masks/1\.png: expected classes from 0 to 2, or 9"):
        check(used)
    with pytest.raises(DataError, match=r"data/val/masks/1\.png: expected classes from 0 to 2, or 9"):
        check_data(used)


def test_masks_of_0_and_255_are_refused(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """Where 255 is ignored nothing but the ground would be learned; where it is a class its number is asked for."""
    for mask in (tmp_path / "data").glob("*/masks/*.png"):
        Image.fromarray(np.uint8(255) * (np.asarray(Image.open(mask)) == 1)).save(mask)
    with pytest.raises(DataError, match=r"data/train/masks: expected some of 3 classes, got 0 alone beside 255, which"):
        check(recipe("data.ignore=255"))
    with pytest.raises(DataError, match="expected classes from 0 to 2, or 9 for what is ignored, got 255"):
        check(recipe())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("data.root=''", "masks need a `root`"),
        ("data.classes=1", "at least 2"),
        ("data.classes=['a', 'a']", "has a name twice"),
        ("data.ignore=2", "`ignore` is 2, which is the number of the class 'blue'"),
        ("data.layout=coco", "'folders', 'voc' or 'cityscapes'"),
        ("data.size=[64, 96]", "data.size"),
        ("data.class_weights=[1, 2]", "`class_weights` has 2 numbers for 3 classes"),
        ("data.train=['RandomCorp']", "torchvision has no transform 'RandomCorp'"),
        ("data.train=['RandomHorizontalFlip']", "`train`: the transforms make .* expected 64 x 64"),
        ("distillation.losses.pixels.loss=margin", "compares the priors or boxes of a detector of faces"),
    ],
)
def test_mistakes_in_a_recipe(recipe: Callable[..., Recipe], setting: str, words: str) -> None:
    """Each is one sentence with the key."""
    with pytest.raises(RecipeError, match=words):
        recipe(setting)


def test_classes_have_names(recipe: Callable[..., Recipe]) -> None:
    """Those given, numbers where a recipe says how many, and VOC's and Cityscapes' own."""
    assert recipe().data.names == ("red", "green", "blue")  # type: ignore[attr-defined]
    assert recipe("data.classes=4").data.names == ("0", "1", "2", "3")  # type: ignore[attr-defined]
    text = "\n".join(line for line in RECIPE.splitlines() if not line.startswith(("classes", "ignore")))
    Path("known.toml").write_text(text)
    for layout, count, first in (("voc", 21, "background"), ("cityscapes", 19, "road")):
        names = load_recipe("known.toml", settings=[f"data.layout={layout}"]).data.names  # type: ignore[attr-defined]
        assert (len(names), names[0]) == (count, first)
    with pytest.raises(RecipeError, match="masks need `classes`"):
        load_recipe("known.toml")


@pytest.mark.parametrize(
    ("target", "settings", "words"),
    [
        (
            "featherpress.models.unet:unet",
            {"classes": 4},
            r"gives \(1, 4, 32, 32\) for one image, expected logits \(1, 3, H, W\)",
        ),
        ("torch.nn:Flatten", {}, r"gives \(1, 12288\) for one image"),
    ],
)
def test_models_that_do_not_fit(
    recipe: Callable[..., Recipe], target: str, settings: dict[str, int], words: str
) -> None:
    """One that tells other classes apart, or gives no maps, is refused with what it gives."""
    with pytest.raises(UsageError, match=words):
        task_of(recipe()).build(target, settings)


def test_a_softmax_is_not_compared_as_sigmoids(recipe: Callable[..., Recipe]) -> None:
    """`binary` is for heads of a sigmoid for each class."""
    own = recipe("distillation.losses.pixels={ loss = 'binary' }")
    with pytest.raises(UsageError, match=r"`distillation.losses.pixels`: the head .* has a softmax over classes"):
        task_of(own).build(own.student.model, own.student.settings)


def test_torchvisions_models(recipe: Callable[..., Recipe]) -> None:
    """Their dictionary is understood, and `"none"` keeps them from fetching weights."""
    settings = {"num_classes": 3, "weights_backbone": "none"}
    task = task_of(recipe())
    model = task.build("torchvision.models.segmentation:lraspp_mobilenet_v3_large", settings)
    assert model.training
    outputs = task.name_outputs(model(torch.zeros(2, 3, 64, 64)))
    assert outputs["logits"].shape == (2, 3, 64, 64)


def test_several_roots_are_joined_and_some_held_out(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """Training images of both, validation images of the first; held-out ones are not trained on."""
    for number in range(2):
        draw(tmp_path / "other" / "train", f"other-{number}", 70 + number)
    task = task_of(recipe('data.root=["data", "other"]', "data.holdout=2"))
    names = {
        split: [each.name(i) for i in range(len(each))]
        for split in ("train", "holdout", "val")
        for each in [task.open(split)]
    }  # type: ignore[arg-type]
    assert (len(names["train"]), len(names["holdout"]), len(names["val"])) == (6, 2, 3)
    assert set(names["train"]) & {"other-0.png", "other-1.png"}
    assert isinstance(task, SegmentationTask)


def test_from_masks_to_a_verdict(
    recipe: Callable[..., Recipe], run_command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All arms are trained, scored and compared by mIoU; what was saved is gated and scored again."""
    assert recipe().name == "colours"
    monkeypatch.setattr("featherpress.compress.tasks.segmentation.task._LEAST", 0.0)
    draw(tmp_path / "data" / "train", "lonely", 99)
    (tmp_path / "data" / "train" / "images" / "lonely.png").unlink()
    ending = run_command(
        "distill", "recipe.toml", "--out", "run", "--set", "teacher.cache=true", "--set", "data.variants=1"
    )
    assert ending.code == 0, ending.err
    assert "left out: 1 masks in data/train/masks without an image" in ending.out
    records = {role: TaskEvaluation.load(tmp_path / "run" / file) for role, file in RECORDS.items()}
    assert {each.metric.name for each in records.values()} == {"mIoU"}
    comparison = json.loads((tmp_path / "run" / "eval" / "comparison.json").read_text())
    assert comparison["verdict"] == "undecided"
    assert "mIoU" in comparison["sentence"]
    assert comparison["distilled"]["scores"] == [records["student"].score]
    assert len(Pictures.load(tmp_path / "run" / "eval" / "gallery" / "pictures.json").images) == 3
    gated = run_command("gate", "run", "--baseline", "run/control", "--margin", "0.5")
    assert "mIoU" in gated.out
    arguments = ("--recipe", "run/recipe.toml", "--weights", "run/weights/last.safetensors")
    again = run_command("evaluate", *arguments, "--out", "again", "--json")
    assert json.loads(again.out)["score"] == records["student"].score
    table = run_command("evaluate", *arguments, "--baseline", "again").out
    assert [line.split()[0] for line in table.splitlines()[:5]] == ["class", "red", "green", "blue", "all"]
    assert "baseline again: mIoU" in table
    assert run_command("report", "run", "--out", "report").code == 0
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*.safetensors")}
    assert run_command("distill", "recipe.toml", "--out", "run", "--resume").code == 0
    assert {file: file.stat().st_mtime_ns for file in written} == written


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--recipe", "recipe.toml"), "needs --recipe and --weights"),
        (("--weights", "x", "--set", "a=1"), "--set changes a recipe: name it with --recipe"),
        (("--recipe", "recipe.toml", "--weights", "x", "--data", "data"), "--data does not go with --recipe"),
        (("unet", "--recipe", "recipe.toml", "--weights", "x"), "MODEL is student or teacher, got 'unet'"),
        (("--recipe", "recipe.toml", "--weights", "x", "--split", "test"), "--split is val or train or holdout"),
        (("--recipe", "recipe.toml", "--weights", "x.safetensors"), "x.safetensors"),
    ],
)
def test_what_evaluate_needs(
    recipe: Callable[..., Recipe], run_command: Callable[..., Any], words: tuple[str, ...], sentence: str
) -> None:
    """Each mistake is one sentence, and ends with 2."""
    assert recipe().name == "colours"
    ending = run_command("evaluate", *words)
    assert ending.code == 2
    assert sentence in ending.err
    assert ending.err.count("\n") == 1


def test_street_scenes(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped recipe is short, and all of its images and masks can be used."""
    monkeypatch.setenv("FEATHERPRESS_SHARED", str(shared))
    if not (shared / "data" / "tasks" / "camvid_masks").is_dir():
        pytest.skip("needs data/tasks/camvid_masks in FEATHERPRESS_SHARED")
    text = (files("featherpress.compress.recipes") / "street_scenes.toml").read_text(encoding="utf-8")
    assert sum(bool(line) and not line.startswith("#") for line in text.splitlines()) <= 15
    used = load_recipe("street_scenes")
    check(used, leaks=False)
    task = task_of(used)
    assert [len(task.open(split)) for split in ("train", "val")] == [367, 101]  # type: ignore[arg-type]
    assert describe_left_out(used) == []


DICTIONARIES = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU())
        self.head, self.auxiliary = nn.Conv2d(width, 3, 1), nn.Conv2d(width, 3, 1)

    def forward(self, images):
        features = self.body(images)
        return {"out": self.head(features), **({"aux": self.auxiliary(features)} if self.training else {})}

def net(width=4):
    return Net(width)
"""


def test_models_that_give_dictionaries_are_distilled(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """Student and teacher may give what torchvision's models give, with an auxiliary output in training alone."""
    (tmp_path / "dictionaries.py").write_text(DICTIONARIES)
    model = '{ model = "dictionaries:net", settings = {} }'
    teacher = '{ model = "dictionaries:net", settings = { width = 8 }, schedule = { epochs = 1, batch_size = 2 } }'
    terms = '{ pixels = { loss = "kl" }, features = { loss = "cwd", student = "body", teacher = "body" } }'
    used = recipe(f"student={model}", f"teacher={teacher}", f"distillation.losses={terms}")
    check(used)
    assert all(finding.passed for finding in preflight(used))
