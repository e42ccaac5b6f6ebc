"""The parts of an experiment, built from its recipe: data, student, adapters."""

from typing import Literal

import torch

from featherpress.compress.data import CocoFaces, FaceDataset, SyntheticFaces, WiderFaces
from featherpress.compress.distillation import Adapters
from featherpress.compress.recipes import DataRecipe, Recipe
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.taps import tap_widths
from featherpress.errors import UsageError
from featherpress.models import Detector, create_detector, load_weights

__all__ = ["default_device", "fresh_adapters", "fresh_student", "open_data"]

_VALIDATION_SEED = 1_000_003


def open_data(data: DataRecipe, split: Literal["train", "val"]) -> FaceDataset:
    """Open a split of a recipe's data; synthetic validation faces come from a seed of their own.

    Errors: `DataError` when there is nothing where the recipe says.
    """
    images = data.train_images if split == "train" else data.validation_images
    if data.kind == "widerface":
        return WiderFaces(expand_path(data.root), split, limit=images or None)
    if data.kind == "coco":
        return CocoFaces(expand_path(data.root) / split, category=data.category, limit=images or None)
    seed = data.seed if split == "train" else data.seed + _VALIDATION_SEED
    return SyntheticFaces(length=images, seed=seed, size=(data.image_size, data.image_size))


def fresh_student(recipe: Recipe, seed: int, *, teacher: Detector | None, control: bool = False) -> Detector:
    """Build the student from a seed; both arms of a seed start from the same weights.

    Where the recipe goes on from an earlier run, each arm starts from the weights of the same arm there.
    """
    torch.manual_seed(seed)
    student = create_detector(recipe.student.model)
    source = recipe.student.backbone
    if recipe.student.weights:
        load_weights(student, expand_path(recipe.student.weights))
    if recipe.student.run:
        earlier = expand_path(recipe.student.run) / ("control" if control else "")
        load_weights(student, earlier / "weights" / "last.safetensors")
        return student
    if source == "teacher" and teacher is not None:
        ours, theirs = student.state_dict(), teacher.state_dict()
        shared = {
            name: theirs[name]
            for name, value in ours.items()
            if name.startswith("backbone.") and name in theirs and theirs[name].shape == value.shape
        }
        if not shared:
            raise UsageError("the teacher's backbone has nothing of the student's shapes; leave `student.backbone` out")
        student.load_state_dict(ours | shared)
    elif source == "teacher":
        raise UsageError(
            "`student.backbone` is the teacher's, but training alone loads no teacher; add --set student.backbone=''"
        )
    elif source:
        load_weights(student.get_submodule("backbone"), expand_path(source))
    return student


def fresh_adapters(recipe: Recipe, student: Detector, teacher: Detector, *, seed: int) -> Adapters:
    """Build adapters between the taps without touching the random stream that the student was drawn from."""
    size = max(64, min(recipe.data.size, 128))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapters = Adapters(
            tap_widths(student, recipe.distillation.student_tap, size=size),
            tap_widths(teacher, recipe.distillation.teacher_tap, size=size),
        )
    return adapters.to(default_device())


def default_device() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
