"""The arms of a comparison: the student, its control, and what else is trained to know what the teacher gave."""

import csv
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from torch import nn

from featherpress.compress.data import Crops
from featherpress.compress.experiments.build import build_student
from featherpress.compress.experiments.experiment import Experiment
from featherpress.compress.experiments.recipe_distiller import RecipeDistiller
from featherpress.compress.experiments.teachers import LoadedTeacher, make_distiller, note_adapters
from featherpress.compress.recipes import Recipe, ScheduleRecipe
from featherpress.compress.runtime.ranks import is_leader
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.training.trainer import Trainer
from featherpress.files import write_json

logger = logging.getLogger("featherpress")

Arm = Literal["student", "control", "public", "shuffled", "smoothing", "compute"]


def list_arms(recipe: Recipe, arms: Sequence[Arm] = ("student", "control")) -> list[Arm]:
    """List what is trained for every seed: the arms asked for and, where both are, what the recipe adds to them."""
    chosen: list[Arm] = [arm for arm in arms if arm == "student" or recipe.control]
    if len(chosen) < 2:
        return chosen
    return [*chosen, *(("public",) if recipe.student.public_backbone else ()), *recipe.placebos]


def arm_folder(folder: Path, arm: Arm) -> Path:
    """Return where an arm lies in the folder of its seed."""
    return folder if arm == "student" else folder / arm


def arm_trainer(
    experiment: Experiment,
    arm: Arm,
    folder: Path,
    *,
    seed: int,
    crops: Crops[Any],
    loaded: Sequence[LoadedTeacher],
    cache: Path | None = None,
) -> Trainer:
    """Return what trains the student, or an arm that differs from it in one thing; the control has no teacher.

    Outputs of teachers are cached in the arm's folder, or in `cache`, where students that see the same crops share
    them. With a control no arm stops early: both must train for as many steps.
    """
    recipe = experiment.recipe
    student = _build(experiment, arm, seed=seed, loaded=loaded)
    if recipe.data.unlabelled is not None:
        crops = _crops(experiment, arm, seed=seed, loaded=loaded)
    target = arm_folder(folder, arm)
    cache = cache or _cache_of(target)
    distiller = _distiller(experiment, arm, student, loaded, crops=crops, cache=cache, seed=seed)
    if arm == "student" and distiller is not None and is_leader() and folder == experiment.out:
        note_adapters(experiment.out, distiller)
    return experiment.trainer(
        student,
        TrainingFolder(target),
        role=arm,
        schedule=_lengthen(experiment) if arm == "compute" else recipe.schedule,
        crops=crops,
        distiller=distiller,
        may_stop=not recipe.control,
    )


def forget_outputs(folder: Path) -> None:
    """Remove an arm's cached outputs of teachers."""
    if is_leader():
        shutil.rmtree(_cache_of(folder), ignore_errors=True)


def _cache_of(folder: Path) -> Path:
    return folder / "cache"


def _build(experiment: Experiment, arm: Arm, *, seed: int, loaded: Sequence[LoadedTeacher]) -> nn.Module:
    recipe = experiment.recipe
    if arm == "public":
        own = recipe.student.model_copy(update={"backbone": recipe.student.public_backbone})
        recipe = recipe.model_copy(update={"student": own})
    elif recipe.student.backbone == "teacher" and not recipe.student.run:
        logger.info("%s: the backbone starts from the teacher's", arm)
    teachers = [teacher.model for teacher in loaded]
    return build_student(
        recipe, seed, task=experiment.task, teachers=teachers, control=arm != "student", folder=experiment.out
    )


def _crops(experiment: Experiment, arm: Arm, *, seed: int, loaded: Sequence[LoadedTeacher]) -> Crops[Any]:
    """Put photographs on top of the student's batches, and as many labelled crops on top of all others'."""
    teacher = loaded[0].model if arm == "student" else None
    return experiment.task.unlabelled_crops(experiment.training, seed, teacher=teacher, out=experiment.out)


def _distiller(
    experiment: Experiment,
    arm: Arm,
    student: nn.Module,
    loaded: Sequence[LoadedTeacher],
    *,
    crops: Crops[Any],
    cache: Path,
    seed: int,
) -> RecipeDistiller | None:
    """Attach the teachers to an arm that learns from them; a placebo's say nothing that only they know."""
    if arm not in {"student", "shuffled", "smoothing"}:
        return None
    return make_distiller(
        experiment.recipe,
        {teacher.name: teacher.model for teacher in loaded},
        student,
        task=experiment.task,
        crops=crops,
        cache=cache,
        seed=seed,
        placebo=arm,
    )


def keep_terms(recipe: Recipe, names: set[str]) -> Recipe:
    """Return a recipe in which the terms of other names weigh nothing."""
    losses = {
        name: term if name in names else term.model_copy(update={"weight": 0.0})
        for name, term in recipe.distillation.losses.items()
    }
    return recipe.model_copy(update={"distillation": recipe.distillation.model_copy(update={"losses": losses})})


def _lengthen(experiment: Experiment) -> ScheduleRecipe:
    """Give the control as many epochs as the student's steps cost; the ratio is measured once and kept."""
    path, schedule = experiment.out / "compute.json", experiment.recipe.schedule
    if path.exists():
        ratio = float(json.loads(path.read_text(encoding="utf-8"))["ratio"])
    else:
        seconds = {arm: _seconds_per_image(arm_folder(experiment.out, arm)) for arm in ("student", "control")}
        ratio = max(1.0, seconds["student"] / seconds["control"])
        if is_leader():
            write_json(path, {"schema": "featherpress.compute/1", "ratio": ratio, "seconds_per_image": seconds})
    epochs = max(schedule.epochs, round(schedule.epochs * ratio))
    logger.info("compute: a step with the teacher costs %.2f of one without: %d epochs", ratio, epochs)
    return schedule.model_copy(update={"epochs": epochs})


def _seconds_per_image(folder: Path) -> float:
    speeds = [float(row["images_per_second"]) for row in _rows(folder) if row["images_per_second"]]
    return fmean(1 / speed for speed in speeds)


def count_steps(folder: Path) -> int:
    """Return how many steps the model in a folder has trained, by its log."""
    return max((int(row["step"]) for row in _rows(folder)), default=0)


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
