"""`export --recipe`: the model of a recipe with its weights, in eight bits scored by its task."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherpress.commands.scoring import require_role
from featherpress.errors import DataError, UsageError
from featherpress.extras import require_extra

logger = logging.getLogger("featherpress")

if TYPE_CHECKING:
    from torch import nn

    from featherpress.compress.deployment.quantization import Images, Quantization
    from featherpress.compress.evaluation.detector.inference import EvaluationResult
    from featherpress.compress.tasks.base import Task
    from featherpress.records.evaluation import Metric
    from featherpress.verdicts import Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInt8:
    """A task's training images to calibrate on, spread over all of them, and its score on validation images.

    `limit` is on how many images at most it is scored, 0 for all.
    """

    task: "Task"
    model: "nn.Module"
    training: Any
    validation: Any
    count: int
    limit: int
    how: "Quantization"

    @property
    def metric(self) -> "Metric":
        """What the task scores by."""
        return self.task.metric

    def images(self) -> "Iterator[Images]":
        """Read training images as the model takes them, one at a time."""
        rows = [self._readable(place * len(self.training) // self.count) for place in range(self.count)]
        return (self.task.view(self.training, row, self.model).numpy() for row in rows)

    def _readable(self, row: int) -> int:
        """Return an image's number, or the next one's that is not broken; said here, as quantising keeps quiet."""
        for each in (*range(row, len(self.training)), *range(row)):
            try:
                self.task.view(self.training, each, self.model)
            except DataError as error:
                logger.warning("calibrating: skipped a broken image: %s", error)
            else:
                return int(each)
        raise DataError("expected a training image to calibrate on that can be read, but all are broken")

    def score(self, model: "nn.Module", label: str) -> "EvaluationResult":
        """Score an exported model on validation images."""
        return self.task.evaluate(
            self.task.runnable(model, self.model), self.validation, label=label, images=self.limit
        )

    def scores(self, predictions: Sequence[Any]) -> "Scores":
        """Return what models predicted as scores for resampling."""
        return self.task.scores(predictions)


def build_by_recipe(
    name: str, settings: Sequence[str] | None, weights: Path | None, *, role: str
) -> "tuple[Task, str, Mapping[str, Any], nn.Module]":
    """Build a recipe's student, or its first teacher, with its weights; return its task, name and settings too.

    Errors: `UsageError` where the weights are not given, and for another role; `CheckpointError` as `load_weights`.
    """
    require_extra("train", "the export of a recipe's model")
    if weights is None:
        raise UsageError("export --recipe needs --weights: the file of a model that the recipe builds")
    chosen = require_role(role)
    from featherpress.compress.experiments.build import build_trained
    from featherpress.compress.recipes import load_recipe
    from featherpress.compress.tasks import task_of

    recipe = load_recipe(name, settings=settings or ())
    task = task_of(recipe)
    own, model = build_trained(recipe, weights, task=task, role=chosen)
    return task, own.model, own.settings, model


def open_int8(task: "Task", model: "nn.Module", *, limit: int, images: int, how: "Quantization") -> TaskInt8:
    """Open the images of a task to calibrate on, `images` at most, and to score on, the first `limit` or all."""
    training, validation = task.open("train"), task.open("val")
    return TaskInt8(
        task=task,
        model=model,
        training=training,
        validation=validation,
        count=min(images, len(training)),
        limit=limit,
        how=how,
    )
