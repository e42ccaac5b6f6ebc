"""What all models of a run share: data, task and folder; and how a model is trained and scored."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from torch import nn

from featherpress import __version__
from featherpress.compress.data import Crops
from featherpress.compress.experiments.provenance import begin, check_teachers
from featherpress.compress.experiments.pruned import AuditModel
from featherpress.compress.experiments.recipe_distiller import RecipeDistiller
from featherpress.compress.recipes import Recipe, ScheduleRecipe, recipe_to_toml
from featherpress.compress.runtime.distributed import by_leader
from featherpress.compress.runtime.ranks import is_leader
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.base import Task
from featherpress.compress.training.trainer import Trainer
from featherpress.files import write_json, write_text
from featherpress.records.run import Provenance

logger = logging.getLogger("featherpress")

HOLDOUT = "holdout"
"""The name of what is saved of training images that were held out."""

_NOT_BEGUN = Provenance(run="", recipe={}, parts={}, machine={})
_SPLITS = {"val": "validation", "holdout": "held-out training"}


class Told(TypedDict, total=False):
    """What a command says of a run, beside its recipe and its folder.

    `audits` are what its models cost, `audit` counts a student that is pruned here, whose cost is not known before.
    `settings` are those of the command line. A run that is not what it began as goes on only with `allow_changed`.
    """

    audits: Mapping[str, Mapping[str, Any]]
    audit: AuditModel
    settings: Sequence[str]
    allow_changed: bool


def kept_audits(out: Path) -> dict[str, Any]:
    """Read what a run has noted of its models' costs, its adapters' and a pruned student's among them."""
    path = out / "budget.json"
    noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return noted


@dataclass(slots=True)
class Experiment:
    """A recipe in a folder: trains models on its data and scores them; the rest is what `Told` says."""

    recipe: Recipe
    out: Path
    audits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    audit: AuditModel | None = None
    settings: Sequence[str] = ()
    allow_changed: bool = False
    provenance: Provenance = field(init=False, default=_NOT_BEGUN)
    task: Task = field(init=False)
    training: Any = field(init=False)
    holdout: Any = field(init=False)
    validation: Any = field(init=False)

    def __post_init__(self) -> None:
        self.task = task_of(self.recipe)
        self.training = self.task.open("train")
        self.holdout = self.task.open("holdout")
        self.validation = self.task.open("val")

    def begin(self, method: str) -> None:
        """Check that the folder is this run's, and write the resolved recipe and the audits of its models.

        Errors: `TrainingError` for a run that is not what it began as.
        """
        self._hold(lambda: begin(self, method))
        self.write_heading()

    def write_heading(self) -> None:
        """Write the run's resolved recipe and the audits of its models."""
        if not is_leader():
            return
        write_text(self.out / "recipe.toml", recipe_to_toml(self.recipe))
        if "student" in self.audits:  # one that is pruned is counted after that
            write_json(self.out / "budget.json", {"schema": "featherpress.budget/1", **self.audits})

    def check_teachers(self, hashes: Mapping[str, str]) -> None:
        """Check that the teachers are those that the run began with.

        Errors: `TrainingError` for others.
        """
        if self.provenance is not _NOT_BEGUN:
            self._hold(lambda: check_teachers(self.out, hashes, allow_changed=self.allow_changed))

    def _hold(self, check: Callable[[], Provenance]) -> None:
        """Let the first process check, and all keep what it found."""
        found = by_leader(lambda: json.dumps(check().to_dict()))
        self.provenance = Provenance.model_validate_json(found)

    def forget_images(self) -> None:
        """Remove decoded images, once nothing trains on them any more."""
        shutil.rmtree(self.out / "decoded", ignore_errors=True)

    def crops(self, seed: int) -> Crops[Any]:
        """Return the crops of the training images under a seed."""
        return self.task.crops(self.training, seed)

    def trainer(
        self,
        model: nn.Module,
        folder: TrainingFolder,
        *,
        role: str,
        schedule: ScheduleRecipe,
        crops: Crops[Any],
        distiller: RecipeDistiller | None = None,
        may_stop: bool = True,
    ) -> Trainer:
        """Return what trains a model; it stops early by the schedule's patience only where it `may_stop`."""
        crops.cache_images(self.recipe.data.cache, self.out / "decoded")
        return Trainer(
            model,
            crops,
            folder,
            schedule=schedule,
            label=role,
            task=self.task,
            distiller=distiller,
            may_stop=may_stop,
            evaluate=lambda averaged: self._evaluate_subset(averaged, schedule),
            metadata={"role": role, "featherpress": __version__},
            belongs_to=f"{self.provenance.run} {folder.path.relative_to(self.out)}",
        )

    def conclude(self, trainer: Trainer, trained: nn.Module, *, name: str) -> Any:
        """Score what a trainer returned on the validation images, and return the predictions.

        Of several processes all train, and the first scores; the others return None.
        """
        folder, role, broken = trainer.folder, trainer.label, trainer.crops.broken
        if broken:
            logger.warning("%s: %d broken images were skipped in training", role, len(broken))
        if not is_leader():
            return None
        if folder.scored:
            return self.task.load(folder.matches)
        if not folder.best_weights.exists():
            shutil.copyfile(folder.last_weights, folder.best_weights)
        return self.score(trained, folder, name=name, role=role, weights=folder.last_weights)[0]

    def score(
        self,
        model: nn.Module,
        folder: TrainingFolder,
        *,
        name: str,
        role: str,
        weights: Path,
        record: str = "validation",
    ) -> tuple[Any, float]:
        """Score a model on all validation images, save record and predictions, and return predictions and score.

        If training images are held out, the model is scored on them too; that record is called `holdout`.
        """
        # The control is the student's model; a teacher's role may be "teacher-2 in training".
        audited = self.audits.get(role.split(maxsplit=1)[0], self.audits.get("student", {}))
        about = {
            "model": name,
            "role": role,
            "weights": weights.name,
            "params": sum(weight.numel() for weight in model.parameters()),
            "macs": audited.get("total", {}).get("macs"),
            "file_bytes": weights.stat().st_size,
        }
        if self.recipe.data.holdout:
            held_out = HOLDOUT if record == "validation" else f"{record}-{HOLDOUT}"
            self._score(model, self.holdout, folder.path / "eval" / held_out, split="holdout", about=about)
        return self._score(model, self.validation, folder.path / "eval" / record, split="val", about=about)

    def _score(
        self, model: nn.Module, images: Any, record: Path, *, split: Literal["val", "holdout"], about: dict[str, Any]
    ) -> tuple[Any, float]:
        label = f"evaluating the {about['role']}"
        scored = self.task.evaluate(model, images, label=label, split=split, about=about)
        scored.predictions.save(record.with_suffix(".npz"))
        write_json(record.with_suffix(".json"), scored.record)
        metric, count = self.task.metric.name, len(scored.predictions.names)
        logger.info("%s: %s %.3f on %d %s images", about["role"], metric, scored.score, count, _SPLITS[split])
        return scored.predictions, scored.score

    def _evaluate_subset(self, model: nn.Module, schedule: ScheduleRecipe) -> float:
        images = schedule.evaluate_images
        return self.task.evaluate(model, self.holdout, label="evaluating", images=images).score
