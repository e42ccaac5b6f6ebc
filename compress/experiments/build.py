"""The parts of an experiment, built from its recipe: student, teachers and adapters."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from featherpress.compress.distillation.adapters import AdapterKind, Adapters, build_adapters, describe
from featherpress.compress.distillation.losses.registry import find_loss
from featherpress.compress.distillation.taps import tap_shapes
from featherpress.compress.recipes import DataRecipe, DistillationRecipe, Recipe, StudentRecipe, TeacherRecipe
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.recipes.terms import FeatureTerm, MgdTerm
from featherpress.compress.runtime.devices import default_device
from featherpress.compress.tasks.base import Task
from featherpress.errors import UsageError
from featherpress.models import load_weights, shipped_weights

logger = logging.getLogger("featherpress")


def build_student(
    recipe: Recipe, seed: int, *, task: Task, teachers: Sequence[nn.Module], control: bool = False
) -> nn.Module:
    """Build the student from a seed. Both arms of a seed start from the same weights.

    If the recipe continues an earlier run, each arm starts from the weights of the same arm there. The backbone
    is copied from the first teacher whose backbone has the student's shapes.
    """
    torch.manual_seed(seed)
    student = task.build(recipe.student.model, recipe.student.settings)
    source = recipe.student.backbone
    if recipe.student.weights:
        load_weights(student, find_weights(recipe.student))
    if recipe.student.run:
        earlier = expand_path(recipe.student.run) / ("control" if control else "")
        load_weights(student, earlier / "weights" / "last.safetensors")
        return student
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
    raise UsageError("no part of the teacher's backbone has the student's shapes; leave `student.backbone` out")


def build_teacher(recipe: Recipe, number: int, *, task: Task) -> nn.Module:
    """Build a recipe's teacher of a number, with its weights unless it is trained first."""
    own = recipe.all_teachers[number]
    torch.manual_seed(recipe.seeds[0])
    model = task.build(own.model, own.settings)
    if own.weights:
        load_weights(model, find_weights(own))
    return model


def find_weights(model: StudentRecipe | TeacherRecipe) -> Path:
    """Return the file of a model's weights: the recipe's, or the package's own if the recipe says `shipped`.

    Errors: `UsageError` if none are shipped for the model with these settings.
    """
    if model.weights == "shipped":
        return shipped_weights(model.model, model.settings)
    return expand_path(model.weights)


def build_term_adapters(
    recipe: Recipe, student: nn.Module, teacher: nn.Module, *, seed: int, number: int = 0
) -> dict[str, Adapters]:
    """Build the adapters of each feature term. The global random state is left as it was.

    `number` is the teacher's index among several.

    Errors: `UsageError` for a tap that does not exist, and for levels that cannot be compared.
    """
    side = _probe_side(recipe.data)
    built = {}
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the GPUs too, and nothing would give them back what they had.
        torch.default_generator.manual_seed(seed)
        for name, path in taps_of(recipe.distillation, number).items():
            term = recipe.distillation.losses[name]
            assert isinstance(term, FeatureTerm)
            ours, theirs = _shapes(student, term.student, side), _shapes(teacher, path, side)
            _check_levels(name, term, ours)
            built[name] = build_adapters(ours, theirs, name=name, kind=_adapter_kind(term)).to(default_device())
            for level, pair in enumerate(zip(ours, theirs, strict=True), start=1):
                logger.debug("%s: level %d: %s", name, level, describe(*pair))
    return built


def taps_of(recipe: DistillationRecipe, number: int = 0) -> dict[str, str]:
    """Return, for each feature term with a weight above 0, the path at which it taps a teacher."""
    return {
        name: term.teacher if isinstance(term.teacher, str) else term.teacher[number]
        for name, term in recipe.losses.items()
        if isinstance(term, FeatureTerm) and term.weight
    }


def _probe_side(data: DataRecipe) -> int:
    """Return the side of the image that is run to learn shapes; detectors take any size, so a small one is enough."""
    return data.image_size if data.task == "classification" else max(64, min(*data.sizes, 128))


def _shapes(model: nn.Module, path: str, side: int) -> list[tuple[int, ...]]:
    return tap_shapes(model, path, torch.zeros(1, 3, side, side, device=next(model.parameters()).device))


def _check_levels(name: str, term: FeatureTerm, shapes: list[tuple[int, ...]]) -> None:
    """Refuse a loss over positions for features without positions, and `levels` of the wrong length."""
    if find_loss(term.loss).maps and any(len(shape) != 4 for shape in shapes):
        raise UsageError(
            f"{name}: {term.loss} compares positions, but {term.student!r} gives {shapes[0]}; use pkd or fitnets"
        )
    if term.levels and (len(term.levels) != len(shapes) or not sum(term.levels)):
        raise UsageError(
            f"{name}: `levels` has {len(term.levels)} weights, expected {len(shapes)}, one for each level of "
            f"{term.student!r}, not all 0"
        )


def _adapter_kind(term: FeatureTerm) -> AdapterKind:
    if isinstance(term, MgdTerm):
        return "generation"
    if not find_loss(term.loss).adapter:
        return "any"
    return "none" if term.adapter == "none" else "linear"
