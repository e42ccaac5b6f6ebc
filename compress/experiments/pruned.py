"""Students that are pruned: cut once for a run, saved in its folder, and built back from there by every arm."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featherpress.compress.pruning.prune import prune
from featherpress.compress.pruning.result import Pruned
from featherpress.compress.recipes import Recipe
from featherpress.compress.recipes.files import expand_path
from featherpress.errors import UsageError
from featherpress.models.saving import build_with_weights

logger = logging.getLogger("featherpress")

PRUNED, PRUNING = "pruned.safetensors", "pruning.json"
"""Where a run keeps the pruned weights that its arms start from; the record of how they came about lies beside it."""

_ZOO_SIDE = 640

AuditModel = Callable[[nn.Module], Mapping[str, Any]]
"""Counts a model that was built, as `featherpress audit` does."""


def starts_pruned(recipe: Recipe) -> bool:
    """Tell whether a recipe's student is cut, or was before."""
    return recipe.student.prune is not None or bool(recipe.student.pruned)


def load_start(recipe: Recipe, build: Callable[[], nn.Module], folder: Path | None) -> nn.Module | None:
    """Build the pruned student that a run, or the recipe, keeps; None where there is none."""
    if recipe.student.pruned:
        return build_with_weights(build, expand_path(recipe.student.pruned))
    kept = folder / PRUNED if folder else None
    return build_with_weights(build, kept) if kept and kept.is_file() else None


def prune_student(recipe: Recipe, model: nn.Module) -> Pruned:
    """Cut a recipe's student, built and with its weights, at the size at which it is counted.

    Errors: those of `prune`.
    """
    own = recipe.student.prune
    assert own is not None
    side = int(recipe.data.counted_at or _ZOO_SIDE)
    return prune(
        model,
        torch.zeros(1, 3, side, side),
        params=own.params,
        macs=own.macs,
        keep=own.keep,
        multiple_of=own.multiple_of,
        budget=recipe.budget or None,
        importance=own.importance,
        floor=own.floor,
    )


def take_weights(student: nn.Module, teachers: Sequence[nn.Module]) -> None:
    """Give a student all weights of the first teacher that has its shapes.

    Errors: UsageError where none has.
    """
    shapes = {name: value.shape for name, value in student.state_dict().items()}
    for teacher in teachers:
        theirs = teacher.state_dict()
        if {name: value.shape for name, value in theirs.items()} == shapes:
            student.load_state_dict(theirs)
            return
    if not teachers:
        raise UsageError("`student.weights` are the teacher's, but training alone loads none; give a file")
    raise UsageError(
        f"no teacher is the model that is to be pruned, {type(student).__name__}, with its settings, so that its "
        "weights do not fit; give `student.weights` a file"
    )


def _log(pruned: Pruned) -> None:
    """Say in the log what was cut."""
    left = ", ".join(f"{name} {amount:,} ({pruned.slack[name]:,} left)" for name, amount in pruned.limits.items())
    logger.info("pruned: %s of %s parameters, within %s", f"{pruned.cost.params:,}", f"{pruned.before.params:,}", left)


def keep_pruned(recipe: Recipe, whole: nn.Module, folder: Path) -> None:
    """Cut a recipe's student and keep its weights, and the record of what was cut, in a folder."""
    if not (recipe.student.weights or recipe.student.backbone):
        logger.warning("the student is pruned out of weights that were never trained; give `student.weights`")
    pruned = prune_student(recipe, whole)
    _log(pruned)
    pruned.describe(recipe.student.model).save(folder / PRUNING)
    pruned.save(folder / PRUNED)
