"""Whole experiments: train a model; or distil one, train its control, and ask whether the gain is real."""

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from featherpress import __version__
from featherpress.compress.building import default_device, fresh_adapters, fresh_student, open_data, taps_of
from featherpress.compress.data import FaceDataset, TrainingCrops
from featherpress.compress.data.replay import ReplayedCrops
from featherpress.compress.distillation import Lessons, Tutor
from featherpress.compress.engine import Trainer
from featherpress.compress.environment import write_environment
from featherpress.compress.evaluation import DetectionSet, Matches, average_precision, compare, match
from featherpress.compress.evaluation.inference import DetectionSettings, evaluate_model
from featherpress.compress.gallery import write_gallery
from featherpress.compress.pseudo_labels import mixed_crops
from featherpress.compress.recipes import Recipe, ScheduleRecipe, recipe_to_toml
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.runs import TrainingFolder, is_leader, write_json, write_text
from featherpress.compress.tasks import DetectionTask, Task
from featherpress.compress.teachers import CachedTeacher, LiveTeacher, fingerprint
from featherpress.errors import TrainingError, UsageError
from featherpress.models import Detector, create_detector, load_weights

__all__ = ["Arm", "check", "distill", "train"]

logger = logging.getLogger("featherpress")

Arm = Literal["student", "control"]
_LEAST_TEACHER_AP = 0.05


@dataclass(slots=True)
class _Experiment:
    """What every model of one run shares."""

    recipe: Recipe
    out: Path
    audits: Mapping[str, Mapping[str, Any]]
    training: FaceDataset = field(init=False)
    choosing: FaceDataset = field(init=False)
    validation: FaceDataset = field(init=False)
    settings: DetectionSettings = field(init=False)
    task: Task = field(init=False)

    def __post_init__(self) -> None:
        self.training = open_data(self.recipe.data, "train")
        self.choosing = open_data(self.recipe.data, "choose")
        self.validation = open_data(self.recipe.data, "val")
        self.task = DetectionTask(self.recipe.losses)
        self.settings = DetectionSettings(long_side=self.recipe.data.long_side)

    def crops(self, seed: int) -> TrainingCrops:
        """Cut training crops; those that come again are kept."""
        data = self.recipe.data
        kind = ReplayedCrops if data.variants else TrainingCrops
        return kind(self.training, size=data.size, seed=seed, variants=data.variants)

    def fit(
        self,
        model: Detector,
        folder: TrainingFolder,
        *,
        name: str,
        role: str,
        schedule: ScheduleRecipe,
        crops: TrainingCrops,
        lessons: Lessons | None = None,
    ) -> DetectionSet | None:
        """Train a model, or find it trained, and evaluate it on the validation images.

        Of several processes all train, and the first evaluates; the others return None.
        """
        if folder.evaluation.exists() and folder.matches.exists():
            logger.info("%s: trained already", role)
            load_weights(model, folder.last_weights)
            return DetectionSet.load(folder.matches)
        trainer = Trainer(
            model,
            crops,
            folder,
            recipe=self.recipe,
            schedule=schedule,
            label=role,
            task=self.task,
            lessons=lessons,
            evaluate=lambda averaged: self._glance(averaged, schedule),
            metadata={"role": role, "featherpress": __version__},
        )
        trained = trainer.run()
        model.load_state_dict(trained.state_dict())
        if is_leader() and not folder.best_weights.exists():
            shutil.copyfile(folder.last_weights, folder.best_weights)
        if crops.broken:
            logger.warning("%s: %d broken images were skipped in training", role, len(crops.broken))
        return self.score(trained, folder, name=name, role=role, weights=folder.last_weights) if is_leader() else None

    def score(self, model: Detector, folder: TrainingFolder, *, name: str, role: str, weights: Path) -> DetectionSet:
        """Evaluate a model on all validation images and save the record and the detections."""
        record = "teacher" if role == "teacher" else "validation"
        evaluation = evaluate_model(
            model, self.validation, settings=self.settings, label=f"evaluating the {role}", skip_broken=True
        )
        # The control is the student's model.
        audited = self.audits.get("teacher" if role.startswith("teacher") else "student", {})
        about = {
            "model": name,
            "role": role,
            "weights": weights.name,
            "params": sum(weight.numel() for weight in model.parameters()),
            "macs": audited.get("total", {}).get("macs"),
            "file_bytes": weights.stat().st_size,
        }
        data = {"name": self.recipe.data.kind, "split": "val"}
        evaluation.found.save(folder.path / "eval" / f"{record}.npz")
        write_json(folder.path / "eval" / f"{record}.json", evaluation.to_dict(data=data, about=about))
        logger.info("%s: AP %.3f on %d validation images", role, evaluation.ap, len(evaluation.found.names))
        return evaluation.found

    def _glance(self, model: Detector, schedule: ScheduleRecipe) -> float:
        images = min(schedule.evaluate_images or len(self.choosing), len(self.choosing))
        return evaluate_model(model, self.choosing, settings=self.settings, skip_broken=True, indices=range(images)).ap


def check(recipe: Recipe, *, alone: bool = False) -> None:
    """Find out, before anything is written, whether a recipe can start: data, models, weights, taps, batches.

    `alone` is for training without the teacher.

    Errors: as `train` and `distill` would raise, only earlier.
    """
    images = len(open_data(recipe.data, "train"))
    open_data(recipe.data, "val")
    schedules = [recipe.schedule]
    teacher = None
    if recipe.teacher is not None and not alone:
        teacher = create_detector(recipe.teacher.model)
        if recipe.teacher.weights:
            load_weights(teacher, expand_path(recipe.teacher.weights))
        elif recipe.teacher.schedule is not None:
            schedules.append(recipe.teacher.schedule)
    for schedule in schedules:
        if images < schedule.batch_size:
            raise UsageError(f"{images} images do not fill one batch of {schedule.batch_size}")
    student = fresh_student(recipe, recipe.seeds[0], teacher=teacher)
    if teacher is not None:
        fresh_adapters(recipe, student, teacher, seed=recipe.seeds[0])


def train(recipe: Recipe, out: Path, *, audits: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Train a recipe's student alone, for its first seed, and evaluate it.

    Returns the run's folder; what is there already is not done again.
    """
    began = time.monotonic()
    experiment = _Experiment(recipe, out, audits or {})
    _write_heading(experiment)
    seed = recipe.seeds[0]
    model = fresh_student(recipe, seed, teacher=None)
    experiment.fit(
        model,
        TrainingFolder(out),
        name=recipe.student.model,
        role="student",
        schedule=recipe.schedule,
        crops=experiment.crops(seed),
    )
    if is_leader():
        write_environment(out, time.monotonic() - began)
    return out


def distill(
    recipe: Recipe,
    out: Path,
    *,
    audits: Mapping[str, Mapping[str, Any]] | None = None,
    arms: Sequence[Arm] = ("student", "control"),
) -> Path:
    """Distil a recipe's teacher into its student, train the control, evaluate all, and compare.

    The control starts from the same weights and sees the same crops in the same order for as long, without a teacher.
    Returns the run's folder; what is there already is not done again. With one arm only, nothing is compared.

    Errors: `UsageError` without a teacher; `TrainingError` when the teacher cannot teach or did not stay as it was.
    """
    if recipe.teacher is None:
        raise UsageError(f"the recipe {recipe.name} has no teacher to distil; use `featherpress train`")
    began = time.monotonic()
    experiment = _Experiment(recipe, out, audits or {})
    _write_heading(experiment)
    teacher, weights = _prepare_teacher(experiment)
    taught = _assess_teacher(experiment, teacher, weights) if is_leader() else None
    before = fingerprint(teacher)
    wanted: Sequence[Arm] = arms if recipe.control else [arm for arm in arms if arm == "student"]
    found: dict[Arm, list[DetectionSet | None]] = {arm: [] for arm in wanted}
    for number, seed in enumerate(recipe.seeds):
        folder = out if number == 0 else out / f"seed-{seed}"
        crops = experiment.crops(seed)
        for arm in wanted:
            found[arm].append(_fit_arm(experiment, arm, folder, seed=seed, crops=crops, teacher=teacher))
    if fingerprint(teacher) != before:
        raise TrainingError("the teacher's weights or buffers changed during distillation; its lessons were not one's")
    if taught is not None:
        sets = {arm: [each for each in found[arm] if each is not None] for arm in wanted}
        _conclude(experiment, taught, sets)
        write_environment(out, time.monotonic() - began)
    return out


def _conclude(experiment: _Experiment, taught: DetectionSet, found: Mapping[Arm, Sequence[DetectionSet]]) -> None:
    """Save what all models found on a few images and, where both arms were trained, the comparison."""
    firsts: dict[str, DetectionSet] = {"teacher": taught, **{str(arm): sets[0] for arm, sets in found.items()}}
    write_gallery(experiment.out / "eval" / "gallery", experiment.validation, firsts)
    if len(found) == 2:
        _compare(experiment, taught, found)


def _prepare_teacher(experiment: _Experiment) -> tuple[Detector, Path]:
    """Load the teacher, or train it first; return it frozen, and its weights file."""
    recipe, out = experiment.recipe, experiment.out
    assert recipe.teacher is not None
    seed = recipe.seeds[0]
    torch.manual_seed(seed)
    teacher = create_detector(recipe.teacher.model)
    weights = expand_path(recipe.teacher.weights)
    if recipe.teacher.weights:
        load_weights(teacher, weights)
    else:
        assert recipe.teacher.schedule is not None
        own = TrainingFolder(out / "teacher")
        experiment.fit(
            teacher,
            own,
            name=recipe.teacher.model,
            role="teacher in training",
            schedule=recipe.teacher.schedule,
            crops=experiment.crops(seed),
        )
        weights = own.last_weights
    teacher = teacher.to(default_device())
    teacher.eval().requires_grad_(False)
    return teacher, weights


def _assess_teacher(experiment: _Experiment, teacher: Detector, weights: Path) -> DetectionSet:
    """Evaluate the teacher before anything learns from it; one that finds nothing cannot teach."""
    assert experiment.recipe.teacher is not None
    saved = experiment.out / "eval" / "teacher.npz"
    if saved.exists():
        return DetectionSet.load(saved)
    name = experiment.recipe.teacher.model
    found = experiment.score(teacher, TrainingFolder(experiment.out), name=name, role="teacher", weights=weights)
    ap = average_precision(match(found.detections, found.truths)).ap or 0.0
    if ap < _LEAST_TEACHER_AP:
        saved.unlink()
        raise TrainingError(
            f"the teacher's AP on the validation images is {ap:.3f}: it cannot teach; check its weights and data"
        )
    return found


def _fit_arm(
    experiment: _Experiment, arm: Arm, folder: Path, *, seed: int, crops: TrainingCrops, teacher: Detector
) -> DetectionSet | None:
    """Train the student, or the control, which differs in having no lessons and in nothing else."""
    recipe = experiment.recipe
    assert recipe.teacher is not None
    student = fresh_student(recipe, seed, teacher=teacher, control=arm == "control")
    if recipe.student.backbone == "teacher" and not recipe.student.run:
        logger.info("%s: the backbone starts from the teacher's", arm)
    lessons = None
    if arm == "student":
        if recipe.data.unlabelled is not None:
            crops = mixed_crops(recipe, experiment.training, teacher, out=experiment.out, seed=seed)
        adapters = fresh_adapters(recipe, student, teacher, seed=seed)
        taps = taps_of(recipe.distillation)
        live = LiveTeacher(teacher, list(taps.values()), experiment.task)
        variants = recipe.data.variants
        cache = folder / "cache" / os.environ.get("RANK", "0")
        cached = CachedTeacher(live, cache, images=len(crops), variants=variants)
        tutor = Tutor(teacher=cached if recipe.teacher.cache else live, taps=taps, adapters=adapters)
        lessons = Lessons(recipe.distillation, [tutor])
    target = TrainingFolder(folder if arm == "student" else folder / "control")
    found = experiment.fit(
        student,
        target,
        name=recipe.student.model,
        role=arm,
        schedule=recipe.schedule,
        crops=crops,
        lessons=lessons,
    )
    if is_leader():
        shutil.rmtree(folder / "cache", ignore_errors=True)
    return found


def _compare(experiment: _Experiment, taught: DetectionSet, found: Mapping[Arm, Sequence[DetectionSet]]) -> None:
    """Put an interval on the gain and save it."""
    recipe = experiment.recipe
    assert recipe.teacher is not None

    def matches(sets: Sequence[DetectionSet]) -> list[Matches]:
        return [match(each.detections, each.truths) for each in sets]

    comparison = compare(control=matches(found["control"]), distilled=matches(found["student"]))
    record = json.loads((experiment.out / "eval" / "teacher.json").read_text())
    write_json(
        experiment.out / "eval" / "comparison.json",
        {
            "schema": "featherpress.comparison/1",
            "metric": "ap",
            "data": record["data"],
            "seeds": list(recipe.seeds),
            "teacher": {"model": recipe.teacher.model, "ap": record["ap"]},
            **comparison.to_dict(),
        },
    )
    logger.info("%s", comparison.sentence)


def _write_heading(experiment: _Experiment) -> None:
    """Write what the run is: its recipe as resolved, and what its models cost."""
    recipe, out = experiment.recipe, experiment.out
    if not is_leader():
        return
    write_text(out / "recipe.toml", recipe_to_toml(recipe))
    if experiment.audits:
        write_json(out / "budget.json", {"schema": "featherpress.budget/1", **experiment.audits})
