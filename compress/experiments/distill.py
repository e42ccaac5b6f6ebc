"""Whole experiments: train a model; or distil one, train its control, and ask whether the gain is real."""

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from featherpress.compress.data import TrainingCrops
from featherpress.compress.data.sizes import batch_lengths
from featherpress.compress.experiments.build import build_student, build_teacher, build_term_adapters
from featherpress.compress.experiments.correlation import record_correlation
from featherpress.compress.experiments.experiment import Experiment
from featherpress.compress.experiments.pseudo_labels import mixed_crops
from featherpress.compress.experiments.teachers import (
    LoadedTeacher,
    evaluate_teacher,
    make_lessons,
    note_adapters,
    prepare_teachers,
    require_unchanged,
)
from featherpress.compress.recipes import Recipe, recipe_to_toml
from featherpress.compress.runtime.environment import write_environment
from featherpress.compress.runtime.run_folder import TrainingFolder, is_leader
from featherpress.compress.tasks import task_of
from featherpress.errors import UsageError
from featherpress.files import write_json, write_text
from featherpress.models import Detector

logger = logging.getLogger("featherpress")

Arm = Literal["student", "control"]


def check(recipe: Recipe, *, without_teachers: bool = False) -> None:
    """Find out, before anything is written, whether a recipe can start: data, models, weights, taps, batches.

    `without_teachers` is for training without teachers.

    Errors: as `train` and `distill` would raise, only earlier.
    """
    task = task_of(recipe)
    images = len(task.open("train"))
    task.open("val")
    taught_by = () if without_teachers else recipe.all_teachers
    teachers = [build_teacher(recipe, number, task=task) for number in range(len(taught_by))]
    for schedule in (recipe.schedule, *(own.schedule for own in taught_by if own.schedule and not own.weights)):
        wanted = sum(batch_lengths(schedule.batch_size, recipe.data.sizes)) * schedule.accumulate
        if images < wanted:
            raise UsageError(f"{images} images do not fill one batch of {wanted}")
    student = build_student(recipe, recipe.seeds[0], task=task, teachers=teachers)
    for number, teacher in enumerate(teachers):
        build_term_adapters(recipe, student, teacher, seed=recipe.seeds[0], number=number)


def train(recipe: Recipe, out: Path, *, audits: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Train a recipe's student alone, for its first seed, and evaluate it.

    Returns the run's folder; what is there already is not done again.
    """
    began = time.monotonic()
    experiment = Experiment(recipe, out, audits or {})
    _write_heading(experiment)
    seed = recipe.seeds[0]
    model = build_student(recipe, seed, task=experiment.task, teachers=())
    experiment.fit(
        model,
        TrainingFolder(out),
        name=recipe.student.model,
        role="student",
        schedule=recipe.schedule,
        crops=experiment.crops(seed),
    )
    if is_leader():
        experiment.forget_images()
        write_environment(out, time.monotonic() - began)
    return out


def distill(
    recipe: Recipe,
    out: Path,
    *,
    audits: Mapping[str, Mapping[str, Any]] | None = None,
    arms: Sequence[Arm] = ("student", "control"),
) -> Path:
    """Distil a recipe's teachers into its student, train the control, evaluate all, and compare.

    The control starts from the same weights and sees the same crops in the same order for as long, without a teacher.
    Returns the run's folder; what is there already is not done again. With one arm only, nothing is compared.

    Errors: `UsageError` without a teacher; `TrainingError` when a teacher cannot teach or did not stay as it was.
    """
    if not recipe.all_teachers:
        raise UsageError(f"the recipe {recipe.name} has no teacher to distil; use `featherpress train`")
    began = time.monotonic()
    experiment = Experiment(recipe, out, audits or {})
    _write_heading(experiment)
    loaded = prepare_teachers(experiment)
    taught = [evaluate_teacher(experiment, teacher) for teacher in loaded] if is_leader() else []
    wanted: Sequence[Arm] = arms if recipe.control else [arm for arm in arms if arm == "student"]
    predictions: dict[Arm, list[Any]] = {arm: [] for arm in wanted}
    for number, seed in enumerate(recipe.seeds):
        folder = out if number == 0 else out / f"seed-{seed}"
        crops = experiment.crops(seed)
        for arm in wanted:
            predictions[arm].append(fit_arm(experiment, arm, folder, seed=seed, crops=crops, loaded=loaded))
    require_unchanged(loaded)
    if is_leader():
        _conclude(experiment, loaded, taught, predictions)
        experiment.forget_images()
        write_environment(out, time.monotonic() - began)
    return out


def fit_arm(
    experiment: Experiment,
    arm: Arm,
    folder: Path,
    *,
    seed: int,
    crops: TrainingCrops,
    loaded: Sequence[LoadedTeacher],
    cache: Path | None = None,
) -> Any:
    """Train the student, or the control, which differs in having no lessons and in nothing else.

    Cached lessons are removed in the end, unless `cache` says where students that see the same crops share them.
    """
    recipe = experiment.recipe
    teachers = [teacher.model for teacher in loaded]
    student = build_student(recipe, seed, task=experiment.task, teachers=teachers, control=arm == "control")
    if recipe.student.backbone == "teacher" and not recipe.student.run:
        logger.info("%s: the backbone starts from the teacher's", arm)
    lessons = None
    if arm == "student":
        if recipe.data.unlabelled is not None:
            assert isinstance(teachers[0], Detector)
            crops = mixed_crops(recipe, experiment.training, teachers[0], out=experiment.out, seed=seed)
        kept = cache or folder / "cache"
        lessons = make_lessons(recipe, loaded, student, task=experiment.task, crops=crops, cache=kept, seed=seed)
        if is_leader() and folder == experiment.out:
            note_adapters(experiment.out, lessons)
    predictions = experiment.fit(
        student,
        TrainingFolder(folder if arm == "student" else folder / "control"),
        name=recipe.student.model,
        role=arm,
        schedule=recipe.schedule,
        crops=crops,
        lessons=lessons,
    )
    if cache is None and is_leader():
        shutil.rmtree(folder / "cache", ignore_errors=True)
    return predictions


def _conclude(
    experiment: Experiment,
    loaded: Sequence[LoadedTeacher],
    taught: Sequence[Any],
    predictions: Mapping[Arm, Sequence[Any]],
) -> None:
    """Save what all models found on a few images and, where both arms were trained, the comparison."""
    firsts = {"teacher": taught[0], **{str(arm): sets[0] for arm, sets in predictions.items()}}
    experiment.task.show(experiment.out / "eval" / "gallery", experiment.validation, firsts)
    record_correlation(experiment, loaded[0].model)
    if len(predictions) < 2:
        return
    metric = experiment.task.metric
    comparison = experiment.task.compare(control=predictions["control"], distilled=predictions["student"])
    records = [json.loads((experiment.out / "eval" / f"{teacher.name}.json").read_text()) for teacher in loaded]
    teachers = [{"model": record["model"], metric: record[metric]} for record in records]
    write_json(
        experiment.out / "eval" / "comparison.json",
        {
            "schema": "featherpress.comparison/1",
            "metric": metric,
            "data": records[0]["data"],
            "seeds": list(experiment.recipe.seeds),
            "teacher": teachers[0],
            **({"teachers": teachers} if len(teachers) > 1 else {}),
            **comparison.to_dict(),
        },
    )
    logger.info("%s", comparison.sentence)


def _write_heading(experiment: Experiment) -> None:
    """Write what the run is: its recipe as resolved, and what its models cost."""
    if not is_leader():
        return
    write_text(experiment.out / "recipe.toml", recipe_to_toml(experiment.recipe))
    if experiment.audits:
        write_json(experiment.out / "budget.json", {"schema": "featherpress.budget/1", **experiment.audits})
