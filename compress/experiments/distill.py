"""Whole experiments: train a model; or distil one, train its control, and test whether the gain is real."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch

from featherpress.compress.data.crops.sampling import batch_lengths
from featherpress.compress.data.leaks import find_leaks
from featherpress.compress.data.subsets import left_out
from featherpress.compress.experiments.arms import Arm, arm_trainer, forget_outputs, list_arms
from featherpress.compress.experiments.build import build_student, build_teacher, build_whole
from featherpress.compress.experiments.conclusion import record_comparison, seed_folder
from featherpress.compress.experiments.correlation import record_correlation
from featherpress.compress.experiments.estimate import planned_steps
from featherpress.compress.experiments.experiment import Experiment, Told
from featherpress.compress.experiments.pruned import PRUNED, keep_pruned
from featherpress.compress.experiments.recipe_distiller import ramp_steps, term_factor
from featherpress.compress.experiments.teachers import (
    LoadedTeacher,
    evaluate_teacher,
    make_distiller,
    prepare_teachers,
    require_unchanged,
    teacher_name,
)
from featherpress.compress.recipes import Recipe
from featherpress.compress.runtime.distributed import by_leader
from featherpress.compress.runtime.environment import write_environment
from featherpress.compress.runtime.ranks import is_leader
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.tasks import task_of
from featherpress.errors import DataError, UsageError

logger = logging.getLogger("featherpress")


def check(recipe: Recipe, *, without_teachers: bool = False, allow_leak: bool = False, leaks: bool = True) -> list[str]:
    """Find out, before anything is written, whether a recipe can start: data, models, weights, taps, batches.

    `without_teachers` is for training without teachers; `allow_leak` for data with the same image in both splits, for
    which nothing is searched without `leaks`. Returns what `describe_left_out` would.

    Errors: those of `train` and `distill`, only earlier.
    """
    task = task_of(recipe)
    training = task.open("train")
    images, validation = len(training), task.open("val")
    for dataset in (training, validation):
        task.check(dataset)
    if leaks:
        _check_leaks(training, validation, allow=allow_leak)
    taught_by = () if without_teachers else recipe.all_teachers
    teachers = [build_teacher(recipe, number, task=task) for number in range(len(taught_by))]
    for schedule in (recipe.schedule, *(own.schedule for own in taught_by if own.schedule and not own.weights)):
        wanted = sum(batch_lengths(schedule.batch_size, recipe.data.sizes)) * schedule.accumulate
        if images < wanted:
            raise UsageError(f"{images} images do not fill one batch of {wanted}")
    student = build_student(recipe, recipe.seeds[0], task=task, teachers=teachers)
    if teachers:
        _check_times(recipe, images)
        named = {teacher_name(number): teacher for number, teacher in enumerate(teachers)}
        make_distiller(recipe, named, student, task=task, seed=recipe.seeds[0]).kd.close()
    return _count_left_out(training, validation)


def describe_left_out(recipe: Recipe) -> list[str]:
    """Return one line that counts what lies among a recipe's data and is not used; none where all of it is."""
    task = task_of(recipe)
    return _count_left_out(task.open("train"), task.open("val"))


def _count_left_out(*datasets: Any) -> list[str]:
    found = left_out(*datasets)
    counted = ", ".join(f"{count:,} {what}" for what, count in found.items())
    return [f"left out: {counted}"] if found else []


def _check_times(recipe: Recipe, images: int) -> None:
    """Refuse a term that is never on, and warn where training ends before one has grown to its weight."""
    steps = planned_steps(images, recipe.schedule, recipe)
    for name, term in recipe.distillation.losses.items():
        stop = recipe.distillation.stop if term.stop is None else term.stop
        last = math.ceil(steps * (1 - stop)) - 1  # of the steps at which it may be on
        factor = term_factor(term, recipe.distillation, step=last, total=steps) if last >= 0 else 0.0
        if term.weight and not factor:
            raise UsageError(
                f"`distillation.losses.{name}` is off at all of the {steps} steps: it begins after the fraction "
                f"{term.start:g} of them, and is off for the last {stop:g}; lower `start` or `stop`"
            )
        if term.weight and factor < 1:
            logger.warning(
                "%s grows over %d steps, and reaches %.2g of its weight in %d: set `ramp_steps` lower",
                name,
                ramp_steps(recipe.distillation, steps) if term.ramp_steps is None else term.ramp_steps,
                factor,
                steps,
            )


def _check_leaks(training: Any, validation: Any, *, allow: bool) -> None:
    """Refuse a validation image that is trained on; warn of near copies."""
    leaks = find_leaks(training, validation)
    for pairs, what in ((leaks.same, "are training images too"), (leaks.near, "look like training images")):
        if not pairs:
            continue
        shown = ", ".join(f"{ours} = {theirs}" for ours, theirs in pairs[:3])
        sentence = f"{len(pairs)} validation images {what}: {shown}{', ...' if len(pairs) > 3 else ''}"
        if pairs is leaks.same and not allow:
            raise DataError(f"{sentence}; take them out of one split, or go on with --allow-leak")
        logger.warning("%s", sentence)


def train(recipe: Recipe, out: Path, **told: Unpack[Told]) -> Path:
    """Train a recipe's student alone, for its first seed, and evaluate it; `told` may say more, as `Told` has it.

    Returns the run's folder. What is done already is not repeated.

    Errors: `TrainingError` for a run that is not what it began as, unless that is allowed.
    """
    began = time.monotonic()
    experiment = Experiment(recipe, out, **told)
    experiment.begin("train")
    _prune(experiment, ())
    seed = recipe.seeds[0]
    trainer = experiment.trainer(
        build_student(recipe, seed, task=experiment.task, teachers=(), folder=out),
        TrainingFolder(out),
        role="student",
        schedule=recipe.schedule,
        crops=experiment.crops(seed),
    )
    experiment.conclude(trainer, trainer.run(), name=recipe.student.model)
    if is_leader():
        experiment.forget_images()
        write_environment(out, time.monotonic() - began, changed=experiment.provenance.changed)
    return out


def distill(
    recipe: Recipe,
    out: Path,
    *,
    arms: Sequence[Arm] = ("student", "control"),
    **told: Unpack[Told],
) -> Path:
    """Distil a recipe's teachers into its student, train the control, evaluate all, and compare.

    The control starts from the same weights and sees as many crops in the same order for as long, without a teacher.
    Returns the run's folder; what is there already is not done again. With one arm only, nothing is compared. `told`
    may say more, as `Told` has it.

    Errors: `UsageError` without a teacher; `TrainingError` when a teacher scores too low or changed, and as `train`.
    """
    if not recipe.all_teachers:
        raise UsageError(f"the recipe {recipe.name} has no teacher to distil; use `featherpress train`")
    began = time.monotonic()
    experiment = Experiment(recipe, out, **told)
    experiment.begin("distill")
    loaded = prepare_teachers(experiment)
    _prune(experiment, loaded)
    taught = [evaluate_teacher(experiment, teacher) for teacher in loaded] if is_leader() else []
    wanted = list_arms(recipe, arms)
    predictions: dict[Arm, list[Any]] = {arm: [] for arm in wanted}
    for seed in recipe.seeds:
        folder = seed_folder(recipe, out, seed)
        crops = experiment.crops(seed)
        for arm in wanted:
            trainer = arm_trainer(experiment, arm, folder, seed=seed, crops=crops, loaded=loaded)
            predictions[arm].append(experiment.conclude(trainer, trainer.run(), name=recipe.student.model))
            forget_outputs(trainer.folder.path)
    require_unchanged(loaded)
    if is_leader():
        _conclude(experiment, loaded, taught, predictions)
        experiment.forget_images()
        write_environment(out, time.monotonic() - began, changed=experiment.provenance.changed)
    return out


def _conclude(
    experiment: Experiment,
    loaded: Sequence[LoadedTeacher],
    taught: Sequence[Any],
    predictions: Mapping[Arm, Sequence[Any]],
) -> None:
    """Save the gallery and, if both arms were trained, the comparison."""
    # A gallery has no column for placebos.
    firsts = {str(arm): sets[0] for arm, sets in predictions.items() if arm in {"student", "control"}}
    experiment.task.show(experiment.out / "eval" / "gallery", experiment.validation, {"teacher": taught[0], **firsts})
    record_correlation(experiment, loaded[0].model)
    if len(predictions) > 1:
        record_comparison(experiment, loaded, taught, predictions)


def _prune(experiment: Experiment, loaded: Sequence[LoadedTeacher]) -> None:
    """Cut the student of a recipe that says so, once for a run, and count it; what was cut before is kept."""
    if experiment.recipe.student.prune is not None:
        by_leader(lambda: _cut(experiment, loaded))


def _cut(experiment: Experiment, loaded: Sequence[LoadedTeacher]) -> str:
    recipe, out = experiment.recipe, experiment.out
    if not (out / PRUNED).is_file():
        torch.manual_seed(recipe.seeds[0])
        teachers = [teacher.model for teacher in loaded]
        keep_pruned(recipe, build_whole(recipe, task=experiment.task, teachers=teachers), out)
    if experiment.audit is not None:
        student = build_student(recipe, recipe.seeds[0], task=experiment.task, teachers=(), folder=out)
        experiment.audits = {**experiment.audits, "student": experiment.audit(student)}
        experiment.write_heading()
    return ""
