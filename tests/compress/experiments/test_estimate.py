"""What a recipe needs and comes to, against what a run then finds and does."""

from pathlib import Path

import pytest
import torch
from torch import nn

from featherpress.compress.distillation.teachers import BoundTeacher
from featherpress.compress.experiments.build import taps_of
from featherpress.compress.experiments.estimate import estimate
from featherpress.compress.experiments.teacher_outputs import CachedTeacher
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.recipes.required_files import list_needs, require_needs
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.tasks import task_of
from featherpress.compress.training.trainer import Trainer
from featherpress.errors import FileError
from tests.recipes import DRAWN_FACES


def small(*settings: str) -> Recipe:
    sizes = ("data.train_images=5", "data.validation_images=2", "data.image_size=64", "data.size=64")
    own = ("schedule.batch_size=2", "schedule.epochs=3", "data.variants=2", "teacher.cache=true")
    return load_recipe(DRAWN_FACES, settings=[*sizes, *own, "teacher.model=featherface_v2", *settings])


def bind(model: nn.Module, recipe: Recipe) -> BoundTeacher:
    """Tap a teacher where the recipe does."""
    bound = BoundTeacher(model, name_outputs=task_of(recipe).name_outputs)
    for path in taps_of(recipe.distillation).values():
        bound.tap(path)
    return bound


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_plan_is_what_a_run_does(tmp_path: Path, precision: str) -> None:
    """Steps are the trainer's own number, and the cache is to the byte what a cached teacher takes on disk."""
    recipe = small(f"teacher.cache={precision}")
    plan = estimate(recipe)
    assert plan is not None
    assert (plan.training, plan.validation, plan.photographs) == (5, 2, 0)
    task = task_of(recipe)
    torch.manual_seed(0)
    model = task.build("featherface_v2", {})
    crops = task.crops(task.open("train"), 0)
    trainer = Trainer(model, crops, TrainingFolder(tmp_path), schedule=recipe.schedule, label="", task=task)
    assert plan.steps == trainer.total == 6
    live = bind(model, recipe)
    cached = CachedTeacher(live, tmp_path, images=len(crops), variants=2, precision=precision)
    batch = crops.batch(crops.sampler.epoch_keys(0)[:1])
    cached.ask(task.images(batch, model), batch.keys)
    assert plan.cache_bytes == cached.bytes > 0


def test_accumulated_batches_are_one_step() -> None:
    """Of five images two pairs are two batches, which are one step: three in three epochs."""
    plan = estimate(small("schedule.accumulate=2"))
    assert plan is not None
    assert plan.steps == 3


def test_a_plan_counts_every_size_of_crops(tmp_path: Path) -> None:
    """Steps, and outputs on disk, of crops of two sizes: as many as are taken, and as large as they are kept."""
    sizes = ("data.size=[64, 128]", "data.train_images=10", "schedule.batch_size=4")
    recipe = small(*sizes, "data.variants=2", "teacher.cache=true", "schedule.epochs=3")
    plan = estimate(recipe)
    assert plan is not None
    task = task_of(recipe)
    model = task.build("featherface_v2", {})
    crops = task.crops(task.open("train"), 0)
    trainer = Trainer(model, crops, TrainingFolder(tmp_path), schedule=recipe.schedule, label="", task=task)
    assert plan.steps == trainer.total == 3 * 2 * (10 // 5)
    live = bind(model, recipe)
    cached = CachedTeacher(live, tmp_path, images=len(crops), variants=2, sizes=2)
    order = crops.sampler.epoch_batches(1, 4)
    assert {len(keys) for keys in order} == {4, 1}
    for keys in order:
        batch = crops.batch(keys)
        images = task.images(batch, model)
        first, again = (cached.ask(images, batch.keys).tensors() for _ in range(2))
        direct = [each.half().float() for each in live.ask(images).tensors()]
        assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(first, again, direct, strict=True))
    assert (plan.cached_crops, plan.cache_bytes) == (10 * 2 * 2, cached.bytes)
    assert plan.crop_bytes == 10 * 2 * 3 * (64**2 + 128**2)
    assert plan.memory_bytes == recipe.data.cache_bytes == 4 << 30


def test_every_root_is_needed(tmp_path: Path) -> None:
    """Labels for training lie in every root, those for validation in the one that is named."""
    roots = [tmp_path / "one", tmp_path / "two"]
    recipe = load_recipe(
        DRAWN_FACES,
        settings=[
            "data.kind=coco",
            f'data.root=["{roots[0]}", "{roots[1]}"]',
            f"data.validation_root={tmp_path}/three",
            f'data.unlabelled={{root=["{tmp_path}/a", "{tmp_path}/b"]}}',
        ],
    )
    needs = {str(need.path.relative_to(tmp_path)): need.key for need in list_needs(recipe)}
    assert needs == {
        "one": "data.root",
        "two": "data.root",
        "three": "data.validation_root",
        "a": "data.unlabelled.root",
        "b": "data.unlabelled.root",
    }


def test_a_plan_counts_teachers_only_where_they_teach() -> None:
    """A teacher without weights is trained first; training alone asks no teacher for anything."""
    recipe = small("teacher.schedule.epochs=4", "teacher.schedule.batch_size=5")
    taught, without_teachers = estimate(recipe), estimate(recipe, without_teachers=True)
    assert taught is not None
    assert without_teachers is not None
    assert dict(taught.teacher_steps) == {0: 4}
    assert (dict(without_teachers.teacher_steps), without_teachers.cache_bytes, without_teachers.steps) == (
        {},
        0,
        taught.steps,
    )


def test_needs_follow_the_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run to go on from is needed for each arm that is trained; a file by its own path is named by its key."""
    monkeypatch.chdir(tmp_path)
    recipe = small('student.run="earlier"', 'student.backbone=""')
    both = [str(need.path) for need in list_needs(recipe)]
    assert both == ["earlier/weights/last.safetensors", "earlier/control/weights/last.safetensors"]
    assert [str(need.path) for need in list_needs(recipe, arms=("control",))] == both[1:]
    assert [str(need.path) for need in list_needs(recipe, without_teachers=True)] == both[:1]
    with pytest.raises(FileError, match=r"student\.run needs earlier/weights/last\.safetensors"):
        require_needs(recipe)
    file = tmp_path / "earlier" / "weights" / "last.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    require_needs(recipe, arms=("student",))


def test_missing_files_of_a_folder_are_listed_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where part of the data is there, what is missing is named; where none is, the folder is."""
    monkeypatch.setenv("FEATHERPRESS_SHARED", str(tmp_path))
    recipe = load_recipe("v1_to_v2")
    with pytest.raises(FileError, match="needs data/widerface in the folder that FEATHERPRESS_SHARED names"):
        require_needs(recipe, without_teachers=True)
    (tmp_path / "data" / "widerface" / "WIDER_val" / "images").mkdir(parents=True)
    with pytest.raises(FileError, match="WIDER_train/images and data/widerface/wider_face_split"):
        require_needs(recipe, without_teachers=True)
    assert estimate(recipe) is None


def test_a_plan_counts_photographs_only_where_a_teacher_labels_them(tmp_path: Path) -> None:
    """Training alone opens none: a student without a teacher has nobody to label them."""
    for number in range(3):
        (tmp_path / f"{number}.jpg").touch()
    recipe = small(f'data.unlabelled={{root="{tmp_path}"}}')
    taught, alone = estimate(recipe), estimate(recipe, without_teachers=True)
    assert taught is not None
    assert alone is not None
    assert (taught.photographs, alone.photographs) == (3, 0)
