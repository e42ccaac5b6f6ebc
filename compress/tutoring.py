"""Teachers made ready: loaded or trained first, scored, and put before a student."""

import copy
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featherpress.compress.building import default_device, find_weights, fresh_adapters, taps_of
from featherpress.compress.data import TrainingCrops
from featherpress.compress.distillation import Lessons, Tutor
from featherpress.compress.recipes import Recipe, TeacherRecipe
from featherpress.compress.runs import TrainingFolder, write_json
from featherpress.compress.tasks import Task, say_metric
from featherpress.compress.teachers import CachedTeacher, LiveTeacher, Teacher, fingerprint
from featherpress.compress.trials import Trial
from featherpress.errors import TrainingError
from featherpress.models import load_weights

__all__ = ["Master", "assess", "make_lessons", "note_adapters", "prepare_teachers", "require_unchanged"]

logger = logging.getLogger("featherpress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Master:
    """A frozen teacher: its place in the recipe, its model, where its weights came from, and their hash."""

    name: str
    recipe: TeacherRecipe
    model: nn.Module
    weights: Path
    hash: str


def prepare_teachers(trial: Trial) -> list[Master]:
    """Load every teacher, or train it first."""
    return [_prepare(trial, own, name=_name(number)) for number, own in enumerate(trial.recipe.tutors, start=1)]


def assess(trial: Trial, master: Master) -> Any:
    """Score a teacher before anything learns from it, and return what it found; one that finds nothing cannot teach.

    Errors: `TrainingError` for a teacher below the task's least score.
    """
    saved = trial.out / "eval" / f"{master.name}.npz"
    if saved.exists() and saved.with_suffix(".json").exists():
        return trial.task.load(saved)
    found, score = trial.score(
        master.model,
        TrainingFolder(trial.out),
        name=master.recipe.model,
        role=master.name,
        weights=master.weights,
        record=master.name,
    )
    if score < trial.task.least:
        saved.unlink()
        metric = say_metric(trial.task.metric)
        raise TrainingError(
            f"the {master.name}'s {metric} on the validation images is {score:.3f}: it cannot teach; check its weights "
            "and data"
        )
    return found


def make_lessons(
    recipe: Recipe,
    masters: Sequence[Master],
    student: nn.Module,
    *,
    task: Task,
    crops: TrainingCrops,
    cache: Path,
    seed: int,
    scale: float = 1.0,
) -> Lessons:
    """Put teachers before a student, with adapters drawn from a seed; what a teacher says is kept in `cache`."""
    tutors = []
    for number, master in enumerate(masters):
        taps = taps_of(recipe.distillation, number)
        live = LiveTeacher(master.model, list(taps.values()), task)
        source: Teacher = live
        if master.recipe.cache:
            source = CachedTeacher(
                live,
                cache / os.environ.get("RANK", "0") / master.name,
                images=len(crops),
                variants=recipe.data.variants,
                sizes=len(crops.sizes),
                precision=str(master.recipe.cache),
            )
        adapters = fresh_adapters(recipe, student, master.model, seed=seed + number, number=number)
        tutors.append(Tutor(teacher=source, weight=master.recipe.weight, taps=taps, adapters=adapters))
    return Lessons(recipe.distillation, tutors, scale=scale)


def note_adapters(out: Path, lessons: Lessons) -> None:
    """Write the adapters' weights into `budget.json`: they are trained, and belong to no model."""
    path = out / "budget.json"
    if path.exists():
        params = sum(weight.numel() for weight in lessons.adapters.parameters())
        write_json(path, json.loads(path.read_text(encoding="utf-8")) | {"adapters": {"params": params}})


def require_unchanged(masters: Sequence[Master]) -> None:
    """Check that no teacher learned anything itself.

    Errors: `TrainingError` when weights or buffers are not what they were.
    """
    for master in masters:
        if fingerprint(master.model) != master.hash:
            raise TrainingError(
                f"the {master.name}'s weights or buffers changed during distillation; its lessons were not one's"
            )


def _name(number: int) -> str:
    return "teacher" if number == 1 else f"teacher-{number}"


def _prepare(trial: Trial, own: TeacherRecipe, *, name: str) -> Master:
    seed = trial.recipe.seeds[0]
    torch.manual_seed(seed)
    model = trial.task.build(own.model, own.settings)
    if own.weights:
        weights = find_weights(own)
        load_weights(model, weights)
    else:
        assert own.schedule is not None
        folder = TrainingFolder(trial.out / name)
        # Accelerate leaves a model that it trained casting to the schedule's precision for good.
        learner = copy.deepcopy(model)
        trial.fit(
            learner, folder, name=own.model, role=f"{name} in training", schedule=own.schedule, crops=trial.crops(seed)
        )
        model.load_state_dict(learner.state_dict())
        weights = folder.last_weights
    model = model.to(default_device())
    model.eval().requires_grad_(False)
    return Master(name=name, recipe=own, model=model, weights=weights, hash=fingerprint(model))
