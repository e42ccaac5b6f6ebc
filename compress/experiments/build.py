"""The parts of an experiment, built from its recipe: student and teachers."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from featherpress.compress.experiments.pruned import (
    load_start,
    prune_student,
    starts_pruned,
    take_weights,
)
from featherpress.compress.recipes import DistillationRecipe, Recipe, StudentRecipe, TeacherRecipe
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.recipes.terms import FeatureTerm
from featherpress.compress.tasks.base import Task
from featherpress.errors import CheckpointError, UsageError
from featherpress.models import load_weights, shipped_weights
from featherpress.models.inputs import input_of
from featherpress.models.saving import build_with_weights, read_input

Role = Literal["student", "teacher"]


def build_student(
    recipe: Recipe,
    seed: int,
    *,
    task: Task,
    teachers: Sequence[nn.Module],
    control: bool = False,
    folder: Path | None = None,
) -> nn.Module:
    """Build the student from a seed. Both arms of a seed start from the same weights.

    If the recipe continues an earlier run, each arm starts from the weights of the same arm there. The backbone
    is copied from the first teacher whose backbone has the student's shapes. A pruned student is the one in the run's
    `folder` for all seeds, else it is cut here.
    """
    torch.manual_seed(seed)
    own = recipe.student
    if own.run:
        earlier = expand_path(own.run) / ("control" if control else "") / "weights" / "last.safetensors"
        return build_with_weights(model_builder(own, task), earlier)
    start = load_start(recipe, model_builder(own, task), folder) if starts_pruned(recipe) else None
    if start is not None:
        torch.manual_seed(seed)  # building back draws weights that are not used
        return start
    student = build_whole(recipe, task=task, teachers=teachers)
    return prune_student(recipe, student).model if own.prune else student


def model_builder(own: StudentRecipe | TeacherRecipe, task: Task) -> Callable[[], nn.Module]:
    """Return what builds a recipe's model with fresh weights."""
    return partial(task.build, own.model, own.settings, **input_settings(own))


def build_whole(recipe: Recipe, *, task: Task, teachers: Sequence[nn.Module]) -> nn.Module:
    """Build the student with the weights that it starts from, before anything is cut."""
    student = model_builder(recipe.student, task)()
    source = recipe.student.backbone
    if recipe.student.weights == "teacher":
        take_weights(student, teachers)
    elif recipe.student.weights:
        load_weights(student, find_weights(recipe.student))
    if source == "teacher" and teachers:
        _take_backbone(student, teachers)
    elif source == "teacher":
        raise UsageError(
            "`student.backbone` is the teacher's, but training alone loads none; add --set student.backbone=''"
        )
    elif source:
        load_weights(student.get_submodule("backbone"), expand_path(source))
    return student


def _take_backbone(student: nn.Module, teachers: Sequence[nn.Module]) -> None:
    ours = student.state_dict()
    for teacher in teachers:
        theirs = teacher.state_dict()
        shared = {
            name: theirs[name]
            for name, value in ours.items()
            if name.startswith("backbone.") and name in theirs and theirs[name].shape == value.shape
        }
        if shared:
            student.load_state_dict(ours | shared)
            return
    if not any(name.startswith("backbone.") for name in ours):
        raise UsageError(
            f"{type(student).__name__} has no module called `backbone` to start from the teacher's; give "
            "`student.weights` a file, or leave `student.backbone` out"
        )
    raise UsageError("no part of the teacher's backbone has the student's shapes; leave `student.backbone` out")


def build_teacher(recipe: Recipe, number: int, *, task: Task) -> nn.Module:
    """Build a recipe's teacher of a number, with its weights unless it is trained first."""
    own = recipe.all_teachers[number]
    torch.manual_seed(recipe.seeds[0])
    model = model_builder(own, task)()
    if own.weights:
        load_weights(model, find_weights(own))
        _require_same(model, find_weights(own))
    return model


def build_trained(
    recipe: Recipe, weights: Path, *, task: Task, role: Role = "student"
) -> tuple[StudentRecipe | TeacherRecipe, nn.Module]:
    """Build a recipe's student, or its first teacher, with a file's weights; return what the recipe says of it too.

    A file of a pruned model says its shape.

    Errors: `UsageError` for a recipe without such a model; `CheckpointError` for weights that are not the model's.
    """
    if role == "teacher" and not recipe.all_teachers:
        raise UsageError(f"the recipe {recipe.name} has no teacher to load {weights} into")
    own = recipe.student if role == "student" else recipe.all_teachers[0]
    model = build_with_weights(model_builder(own, task), weights)
    _require_same(model, weights)
    return own, model


def _require_same(model: nn.Module, weights: Path) -> None:
    """Refuse weights that say they have a class at another place, or take images normalised otherwise."""
    said, built = read_input(weights), input_of(model)
    if said is None or built is None:
        return
    for name in built.classes:
        if name in said.classes and said.classes.index(name) != built.classes.index(name):
            raise CheckpointError(
                f"{weights} has {name!r} as class {said.classes.index(name)}, the recipe as class "
                f"{built.classes.index(name)}: name the classes of `[data]` in the file's order, "
                f"{', '.join(said.classes)}"
            )
    if (said.mean, said.std) != (built.mean, built.std):
        raise CheckpointError(
            f"{weights} takes images normalised by the mean {said.mean} and the deviation {said.std}, the recipe has "
            f"{built.mean} and {built.std}: give its model `normalize`, as the file says"
        )


def input_settings(model: StudentRecipe | TeacherRecipe) -> dict[str, Any]:
    """Return what a recipe says of the images that a model takes."""
    said = {"normalize": model.normalize, "size": getattr(model, "size", 0)}
    return {key: value for key, value in said.items() if value}


def find_weights(model: StudentRecipe | TeacherRecipe) -> Path:
    """Return the file of a model's weights: the recipe's, or the package's own if the recipe says `shipped`.

    Errors: `UsageError` if none are shipped for the model with these settings.
    """
    if model.weights == "shipped":
        return shipped_weights(model.model, model.settings)
    return expand_path(model.weights)


def taps_of(recipe: DistillationRecipe, number: int = 0) -> dict[str, str]:
    """Return, for each feature term with a weight above 0, the path at which it taps a teacher."""
    return {
        name: term.teacher if isinstance(term.teacher, str) else term.teacher[number]
        for name, term in recipe.losses.items()
        if isinstance(term, FeatureTerm) and term.weight
    }
