"""Whole experiments: train a model; or distil one, train its control, and ask whether the gain is real."""

import json
import logging
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torchvision

from featherpress import __version__
from featherpress.compress.data import FaceDataset, SyntheticFaces, TrainingCrops, WiderFaces
from featherpress.compress.data.replay import ReplayedCrops
from featherpress.compress.distillation import Adapters
from featherpress.compress.engine import Lessons, Trainer
from featherpress.compress.evaluation import DetectionSet, Matches, compare, match
from featherpress.compress.evaluation.inference import DetectionSettings, evaluate_model
from featherpress.compress.gallery import write_gallery
from featherpress.compress.recipes import DataRecipe, Recipe, ScheduleRecipe, recipe_to_toml
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.runs import TrainingFolder, write_json, write_text
from featherpress.compress.taps import tap_widths
from featherpress.compress.teachers import CachedTeacher, LiveTeacher, fingerprint
from featherpress.errors import TrainingError, UsageError
from featherpress.models import Detector, create_detector, load_weights

__all__ = ["Arm", "distill", "open_data", "train"]

logger = logging.getLogger("featherpress")

Arm = Literal["student", "control"]
_VALIDATION_SEED = 1_000_003
_LEAST_TEACHER_AP = 0.05


def open_data(data: DataRecipe, split: Literal["train", "val"]) -> FaceDataset:
    """Open a split of a recipe's data; synthetic validation faces come from a seed of their own.

    Errors: `DataError` when there is nothing where the recipe says.
    """
    images = data.train_images if split == "train" else data.validation_images
    if data.kind == "widerface":
        return WiderFaces(expand_path(data.root), split, limit=images or None)
    seed = data.seed if split == "train" else data.seed + _VALIDATION_SEED
    return SyntheticFaces(length=images, seed=seed, size=(data.image_size, data.image_size))


@dataclass(slots=True)
class _Experiment:
    """What every model of one run shares."""

    recipe: Recipe
    out: Path
    audits: Mapping[str, Mapping[str, Any]]
    training: FaceDataset = field(init=False)
    validation: FaceDataset = field(init=False)
    settings: DetectionSettings = field(init=False)

    def __post_init__(self) -> None:
        self.training = open_data(self.recipe.data, "train")
        self.validation = open_data(self.recipe.data, "val")
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
        seed: int,
        lessons: Lessons | None = None,
    ) -> DetectionSet:
        """Train a model, or find it trained, and evaluate it on the validation images."""
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
            seed=seed,
            label=role,
            lessons=lessons,
            evaluate=lambda averaged: self._glance(averaged, schedule),
            metadata={"model": name, "role": role, "featherpress": __version__},
        )
        trained = trainer.run()
        model.load_state_dict(trained.state_dict())
        if not folder.best_weights.exists():
            shutil.copyfile(folder.last_weights, folder.best_weights)
        if crops.broken:
            logger.warning("%s: %d broken images were skipped in training", role, len(crops.broken))
        return self.score(trained, folder, name=name, role=role, weights=folder.last_weights)

    def score(self, model: Detector, folder: TrainingFolder, *, name: str, role: str, weights: Path) -> DetectionSet:
        """Evaluate a model on all validation images and save the record and the detections."""
        record = "teacher" if role == "teacher" else "validation"
        evaluation = evaluate_model(
            model, self.validation, settings=self.settings, label=f"evaluating the {role}", skip_broken=True
        )
        about = {
            "model": name,
            "role": role,
            "weights": weights.name,
            "params": sum(weight.numel() for weight in model.parameters()),
            "macs": self.audits.get(role, {}).get("total", {}).get("macs"),
            "file_bytes": weights.stat().st_size,
        }
        data = {"name": self.recipe.data.kind, "split": "val"}
        evaluation.found.save(folder.path / "eval" / f"{record}.npz")
        write_json(folder.path / "eval" / f"{record}.json", evaluation.to_dict(data=data, about=about))
        logger.info("%s: AP %.3f on %d validation images", role, evaluation.ap, len(evaluation.found.names))
        return evaluation.found

    def _glance(self, model: Detector, schedule: ScheduleRecipe) -> float:
        images = min(schedule.evaluate_images or len(self.validation), len(self.validation))
        return evaluate_model(
            model, self.validation, settings=self.settings, skip_broken=True, indices=range(images)
        ).ap


def train(recipe: Recipe, out: Path, *, audits: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Train a recipe's student alone, for its first seed, and evaluate it.

    Returns the run's folder; what is there already is not done again.
    """
    began = time.monotonic()
    experiment = _Experiment(recipe, out, audits or {})
    _write_heading(experiment)
    seed = recipe.seeds[0]
    model = _fresh_student(recipe, seed, teacher=None)
    experiment.fit(
        model,
        TrainingFolder(out),
        name=recipe.student.model,
        role="student",
        schedule=recipe.schedule,
        crops=experiment.crops(seed),
        seed=seed,
    )
    _write_environment(out, time.monotonic() - began)
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
    teacher, taught = _prepare_teacher(experiment)
    before = fingerprint(teacher)
    wanted: Sequence[Arm] = arms if recipe.control else [arm for arm in arms if arm == "student"]
    found: dict[Arm, list[DetectionSet]] = {arm: [] for arm in wanted}
    for number, seed in enumerate(recipe.seeds):
        folder = out if number == 0 else out / f"seed-{seed}"
        crops = experiment.crops(seed)
        for arm in wanted:
            found[arm].append(_fit_arm(experiment, arm, folder, seed=seed, crops=crops, teacher=teacher))
    if fingerprint(teacher) != before:
        raise TrainingError("the teacher's weights or buffers changed during distillation; its lessons were not one's")
    sets: dict[str, DetectionSet] = {"teacher": taught, **{str(arm): each[0] for arm, each in found.items()}}
    write_gallery(out / "eval" / "gallery", experiment.validation, sets)
    if len(wanted) == 2:
        _compare(experiment, taught, found)
    _write_environment(out, time.monotonic() - began)
    return out


def _prepare_teacher(experiment: _Experiment) -> tuple[Detector, DetectionSet]:
    """Load the teacher, or train it first; evaluate it before anything learns from it."""
    recipe, out = experiment.recipe, experiment.out
    assert recipe.teacher is not None
    folder = TrainingFolder(out)
    torch.manual_seed(recipe.seeds[0])
    teacher = create_detector(recipe.teacher.model)
    if recipe.teacher.weights:
        weights = expand_path(recipe.teacher.weights)
        load_weights(teacher, weights)
    else:
        assert recipe.teacher.schedule is not None
        own = TrainingFolder(out / "teacher")
        crops = experiment.crops(recipe.seeds[0])
        experiment.fit(
            teacher,
            own,
            name=recipe.teacher.model,
            role="teacher in training",
            schedule=recipe.teacher.schedule,
            crops=crops,
            seed=recipe.seeds[0],
        )
        weights = own.last_weights
    teacher = teacher.to(_device()).eval().requires_grad_(False)
    saved = out / "eval" / "teacher.npz"
    if saved.exists():
        return teacher, DetectionSet.load(saved)
    found = experiment.score(teacher, folder, name=recipe.teacher.model, role="teacher", weights=weights)
    ap = json.loads((out / "eval" / "teacher.json").read_text())["ap"] or 0.0
    if ap < _LEAST_TEACHER_AP:
        saved.unlink()
        raise TrainingError(
            f"the teacher's AP on the validation images is {ap:.3f}: it cannot teach; check its weights and data"
        )
    return teacher, found


def _fit_arm(
    experiment: _Experiment, arm: Arm, folder: Path, *, seed: int, crops: TrainingCrops, teacher: Detector
) -> DetectionSet:
    """Train the student, or the control, which differs in having no lessons and in nothing else."""
    recipe = experiment.recipe
    assert recipe.teacher is not None
    student = _fresh_student(recipe, seed, teacher=teacher)
    lessons = None
    if arm == "student":
        live = LiveTeacher(teacher, recipe.distillation.teacher_tap)
        variants = recipe.data.variants
        cached = CachedTeacher(live, folder / "cache", images=len(crops), variants=variants)
        lessons = Lessons(
            teacher=cached if recipe.teacher.cache else live,
            adapters=_fresh_adapters(recipe, student, teacher, seed=seed),
        )
    target = TrainingFolder(folder if arm == "student" else folder / "control")
    found = experiment.fit(
        student,
        target,
        name=recipe.student.model,
        role=arm,
        schedule=recipe.schedule,
        crops=crops,
        seed=seed,
        lessons=lessons,
    )
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return found


def _fresh_student(recipe: Recipe, seed: int, *, teacher: Detector | None) -> Detector:
    """Build the student from a seed; every arm of a seed starts from exactly these weights."""
    torch.manual_seed(seed)
    student = create_detector(recipe.student.model)
    source = recipe.student.backbone
    if recipe.student.weights:
        load_weights(student, expand_path(recipe.student.weights))
    if source == "teacher" and teacher is not None:
        ours, theirs = student.state_dict(), teacher.state_dict()
        shared = {
            name: theirs[name]
            for name, value in ours.items()
            if name.startswith("backbone.") and name in theirs and theirs[name].shape == value.shape
        }
        if not shared:
            raise UsageError("the teacher's backbone has nothing of the student's shapes; leave `student.backbone` out")
        student.load_state_dict(ours | shared)
        logger.info("the student's backbone starts from the teacher's: %d tensors", len(shared))
    elif source:
        load_weights(student.get_submodule("backbone"), expand_path(source))
    return student


def _fresh_adapters(recipe: Recipe, student: Detector, teacher: Detector, *, seed: int) -> Adapters:
    """Build adapters between the taps without touching the random stream that the student was drawn from."""
    size = max(64, min(recipe.data.size, 128))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapters = Adapters(
            tap_widths(student, recipe.distillation.student_tap, size=size),
            tap_widths(teacher, recipe.distillation.teacher_tap, size=size),
        )
    return adapters.to(_device())


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
    write_text(out / "recipe.toml", recipe_to_toml(recipe))
    if experiment.audits:
        write_json(out / "budget.json", {"schema": "featherpress.budget/1", **experiment.audits})


def _write_environment(out: Path, seconds: float) -> None:
    record = {
        "schema": "featherpress.environment/1",
        "featherpress": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": str(_device()),
        "command": ["featherpress", *sys.argv[1:]],
        "seconds": round(seconds, 1),
    }
    write_json(out / "environment.json", record)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
