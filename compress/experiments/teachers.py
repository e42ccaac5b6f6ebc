"""Teachers: loaded or trained first, scored, and attached to a student."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featherpress.compress.data import Crops
from featherpress.compress.distillation.distiller import Distiller
from featherpress.compress.experiments.build import build_teacher, find_weights, taps_of
from featherpress.compress.experiments.experiment import Experiment, kept_audits
from featherpress.compress.experiments.recipe_distiller import RecipeDistiller, build_term
from featherpress.compress.experiments.teacher_outputs import CachedTeacher
from featherpress.compress.recipes import Recipe, TeacherRecipe
from featherpress.compress.runtime.devices import default_device
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.compress.runtime.logs import log_from
from featherpress.compress.runtime.ranks import rank
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.tasks.base import Task
from featherpress.errors import TrainingError
from featherpress.files import write_json

logger = logging.getLogger("featherpress")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTeacher:
    """A frozen teacher: its place in the recipe, its model, where its weights came from, and their hash."""

    name: str
    recipe: TeacherRecipe
    model: nn.Module
    weights: Path
    hash: str


def prepare_teachers(experiment: Experiment) -> list[LoadedTeacher]:
    """Load every teacher, or train it first.

    Errors: `TrainingError` for teachers that are not those that the run began with.
    """
    loaded = [_prepare(experiment, number) for number in range(len(experiment.recipe.all_teachers))]
    experiment.check_teachers({teacher.name: teacher.hash for teacher in loaded})
    return loaded


def freeze_teacher(recipe: Recipe, number: int, model: nn.Module, *, trained: Path = Path()) -> LoadedTeacher:
    """Freeze a recipe's teacher; its weights are the recipe's file, or `trained` where it was trained first."""
    own = recipe.all_teachers[number]
    weights = find_weights(own) if own.weights else trained
    model = model.to(default_device()).eval().requires_grad_(False)
    return LoadedTeacher(name=teacher_name(number), recipe=own, model=model, weights=weights, hash=fingerprint(model))


def teacher_name(number: int) -> str:
    """Return the name of a teacher in a run's folder and log; teachers are numbered from 0."""
    return f"teacher-{number + 1}" if number else "teacher"


def evaluate_teacher(experiment: Experiment, teacher: LoadedTeacher) -> Any:
    """Score a teacher before anything learns from it, and return its predictions.

    Errors: `TrainingError` for a teacher below the task's minimum score.
    """
    saved = experiment.out / "eval" / f"{teacher.name}.npz"
    if saved.exists() and saved.with_suffix(".json").exists():
        return experiment.task.load(saved)
    predictions, score = experiment.score(
        teacher.model,
        TrainingFolder(experiment.out),
        name=teacher.recipe.model,
        role=teacher.name,
        weights=teacher.weights,
        record=teacher.name,
    )
    if score < experiment.task.min_teacher_score:
        saved.unlink()
        metric = experiment.task.metric.name
        raise TrainingError(
            f"the {teacher.name}'s {metric} on the validation images is {score:.3f}, too low to teach: "
            f"{experiment.task.min_teacher_score:.3g} is the least; check its weights and data, or train it longer"
        )
    return predictions


def make_distiller(
    recipe: Recipe,
    teachers: Mapping[str, nn.Module],
    student: nn.Module,
    *,
    task: Task,
    seed: int,
    crops: Crops[Any] | None = None,
    cache: Path | None = None,
    scale: float = 1.0,
    placebo: str = "",
) -> RecipeDistiller:
    """Attach a recipe's teachers to a student, with adapters drawn from a seed.

    With `crops` the outputs of teachers whose recipe says so are cached in `cache`.
    """
    taps = {name: taps_of(recipe.distillation, number) for number, name in enumerate(teachers)}
    terms = {
        name: build_term(term, taps={teacher: paths[name] for teacher, paths in taps.items() if name in paths})
        for name, term in recipe.distillation.losses.items()
    }
    # That pkd compares over a batch is of interest where batches come in parts.
    level = logging.WARNING if recipe.schedule.accumulate > 1 else logging.ERROR
    with log_from(level):
        kd = Distiller(
            student,
            teachers,
            terms,
            example=task.example().to(default_device()),
            output=partial(_name_outputs, task),
            teacher_inputs={name: task.teacher_inputs(student, teacher) for name, teacher in teachers.items()},
            teacher_weights={name: own.weight for name, own in zip(teachers, recipe.all_teachers, strict=True)},
            order="sequential" if recipe.distillation.teaching == "sequential" else "mean",
            balance=recipe.distillation.balance or None,
            placebo=placebo,
            seed=seed,
        )
    caches = {}
    for (name, bound), own in zip(kd.teachers.items(), recipe.all_teachers, strict=True):
        bound.model.to(memory_format=torch.channels_last)
        if own.cache and crops is not None and cache is not None:
            caches[name] = CachedTeacher(
                bound,
                cache / str(rank()) / name,
                images=len(crops),
                variants=recipe.data.variants,
                sizes=len(crops.sampler.sizes),
                precision=str(own.cache),
            )
    return RecipeDistiller(recipe.distillation, kd, caches=caches, scale=scale)


def _name_outputs(task: Task, raw: Any) -> Mapping[str, torch.Tensor]:
    """Name a model's outputs, unless the trainer did before it asked for the loss; a model's own names are others."""
    return raw if isinstance(raw, Mapping) and set(raw) <= set(task.outputs) else task.name_outputs(raw)


def note_adapters(out: Path, distiller: RecipeDistiller) -> None:
    """Write the number of the adapters' weights into `budget.json`: they are trained, but part of no model."""
    noted = kept_audits(out)
    if noted:
        params = sum(weight.numel() for weight in distiller.kd.parameters())
        write_json(out / "budget.json", noted | {"adapters": {"params": params}})


def require_unchanged(loaded: Sequence[LoadedTeacher]) -> None:
    """Check that no teacher has changed.

    Errors: `TrainingError` when a teacher's weights or buffers are not the same as before.
    """
    for teacher in loaded:
        if fingerprint(teacher.model) != teacher.hash:
            raise TrainingError(
                f"the {teacher.name}'s weights or buffers changed during distillation, so its outputs were not "
                "those of one model"
            )


def _prepare(experiment: Experiment, number: int) -> LoadedTeacher:
    recipe, name = experiment.recipe, teacher_name(number)
    own = recipe.all_teachers[number]
    model = build_teacher(recipe, number, task=experiment.task)
    if own.weights:
        return freeze_teacher(recipe, number, model)
    assert own.schedule is not None
    folder = TrainingFolder(experiment.out / name)
    # Accelerate leaves a model that it trained casting to the schedule's precision for good.
    trainer = experiment.trainer(
        copy.deepcopy(model),
        folder,
        role=f"{name} in training",
        schedule=own.schedule,
        crops=experiment.task.crops(experiment.task.teacher_images(experiment.training), recipe.seeds[0]),
    )
    trained = trainer.run()
    experiment.conclude(trainer, trained, name=own.model)
    model.load_state_dict(trained.state_dict())
    return freeze_teacher(recipe, number, model, trained=folder.last_weights)
