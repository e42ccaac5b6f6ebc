"""The parts of an experiment, built from its recipe: data, student, adapters."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from featherpress.compress.adapters import AdapterKind, Adapters, build_adapters, describe
from featherpress.compress.data import CocoFaces, CropRanges, FaceDataset, LabelledFolder, SyntheticFaces, WiderFaces
from featherpress.compress.data.labelled import require_faces
from featherpress.compress.data.subsets import JoinedFaces, hold_out, hold_out_events
from featherpress.compress.losses.registry import find_loss
from featherpress.compress.recipes import DataRecipe, DistillationRecipe, Recipe, StudentRecipe, TeacherRecipe
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.recipes.terms import FeatureTerm, MgdTerm
from featherpress.compress.taps import tap_shapes
from featherpress.errors import UsageError
from featherpress.models import load_weights, shipped_weights

if TYPE_CHECKING:
    from featherpress.compress.tasks import Task

__all__ = ["crop_ranges", "default_device", "find_weights", "fresh_adapters", "fresh_student", "open_data", "taps_of"]

logger = logging.getLogger("featherpress")

_VALIDATION_SEED = 1_000_003


def open_data(data: DataRecipe, split: Literal["train", "val", "choose"]) -> FaceDataset:
    """Open a split of a recipe's data; `choose` is what is held out of `train`, or else `val`.

    Errors: `DataError` when there is nothing where the recipe says; `UsageError` when nothing is left to train on.
    """
    if split == "val" or not data.holdout:
        return _open_split(data, "train" if split == "train" else "val")
    hold = hold_out_events if data.holdout_by == "event" else hold_out
    training, choosing = hold(_open_split(data, "train"), data.holdout)
    return training if split == "train" else choosing


def _open_split(data: DataRecipe, split: Literal["train", "val"]) -> FaceDataset:
    """Open a split as it lies there; synthetic validation faces come from a seed of their own."""
    images = data.train_images if split == "train" else data.validation_images
    if data.kind != "synthetic":
        roots = data.roots if split == "train" else (data.validation_root or data.roots[0],)
        folders = [_open_folder(data, root, split, limit=images or None) for root in roots]
        return folders[0] if len(folders) == 1 else JoinedFaces(*folders)
    seed = data.seed if split == "train" else data.seed + _VALIDATION_SEED
    return SyntheticFaces(length=images, seed=seed, size=(data.image_size, data.image_size))


def _open_folder(data: DataRecipe, root: str, split: Literal["train", "val"], *, limit: int | None) -> LabelledFolder:
    """Open labelled images; those to train on must hold a face."""
    folder: LabelledFolder
    if data.kind == "widerface":
        folder = WiderFaces(expand_path(root), split, limit=limit)
    else:
        folder = CocoFaces(expand_path(root) / split, category=data.category, limit=limit)
    if split == "train":
        require_faces(folder)
    return folder


def crop_ranges(data: DataRecipe) -> CropRanges:
    """Return what a recipe lets be drawn for a training crop."""
    return CropRanges(
        zoom_in=data.crops.zoom_in,
        zoom_out=data.crops.zoom_out,
        zoom_out_probability=data.crops.zoom_out_probability,
        native=data.crops.native,
        native_probability=data.crops.native_probability,
    )


def fresh_student(
    recipe: Recipe, seed: int, *, task: "Task", teachers: Sequence[nn.Module], control: bool = False
) -> nn.Module:
    """Build the student from a seed; both arms of a seed start from the same weights.

    Where the recipe goes on from an earlier run, each arm starts from the weights of the same arm there. The backbone
    is that of the first teacher that has one of its shapes.
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
            "`student.backbone` is the teacher's, but training alone loads no teacher; add --set student.backbone=''"
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
    raise UsageError("the teacher's backbone has nothing of the student's shapes; leave `student.backbone` out")


def find_weights(model: StudentRecipe | TeacherRecipe) -> Path:
    """Return the file of a model's weights, which is the package's own where the recipe says `shipped`.

    Errors: `UsageError` where none are shipped for the model as its settings make it.
    """
    if model.weights == "shipped":
        return shipped_weights(model.model, model.settings)
    return expand_path(model.weights)


def fresh_adapters(
    recipe: Recipe, student: nn.Module, teacher: nn.Module, *, seed: int, number: int = 0
) -> dict[str, Adapters]:
    """Build the adapters of each feature term without touching the random stream that the student was drawn from.

    `number` is the teacher's among several.

    Errors: `UsageError` for a tap that is not there, and for levels that cannot be compared.
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
    """Name the path at which each feature term that weighs something taps the teacher of a number."""
    return {
        name: term.teacher if isinstance(term.teacher, str) else term.teacher[number]
        for name, term in recipe.losses.items()
        if isinstance(term, FeatureTerm) and term.weight
    }


def _probe_side(data: DataRecipe) -> int:
    """Choose the size of the image that shapes are found out with; detectors scale, so that a small one will do."""
    return data.image_size if data.task == "classification" else max(64, min(*data.sizes, 128))


def _shapes(model: nn.Module, path: str, side: int) -> list[tuple[int, ...]]:
    return tap_shapes(model, path, torch.zeros(1, 3, side, side, device=next(model.parameters()).device))


def _check_levels(name: str, term: FeatureTerm, shapes: list[tuple[int, ...]]) -> None:
    """Refuse a loss over places for what has none, and weights for other levels than there are."""
    if find_loss(term.loss).maps and any(len(shape) != 4 for shape in shapes):
        raise UsageError(
            f"{name}: {term.loss} compares places, but {term.student!r} gives {shapes[0]}; use pkd or fitnets"
        )
    if term.levels and (len(term.levels) != len(shapes) or not sum(term.levels)):
        raise UsageError(
            f"{name}: `levels` has {len(term.levels)} weights, expected {len(shapes)}, one for each level that "
            f"{term.student!r} gives, not all 0"
        )


def _adapter_kind(term: FeatureTerm) -> AdapterKind:
    if isinstance(term, MgdTerm):
        return "generation"
    if not find_loss(term.loss).adapter:
        return "any"
    return "none" if term.adapter == "none" else "linear"


def default_device() -> torch.device:
    """Return the GPU where there is one; of several processes on a machine, each has its own."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # Asked before accelerate has chosen one, so by the rule that it chooses by.
    local = os.environ.get("LOCAL_RANK")
    return torch.device("cuda") if local is None else torch.device("cuda", int(local) % torch.cuda.device_count())
