"""Tasks: how a model's outputs are named, supervised and scored. The trainer knows no more of them."""

from featherpress.compress.evaluation.detector.inference import EvaluationResult
from featherpress.compress.recipes import Recipe
from featherpress.compress.tasks.base import (
    LabelContext,
    LossContext,
    Outputs,
    PriorContext,
    Split,
    Task,
    TaskLoss,
    format_metric,
)
from featherpress.compress.tasks.classification.task import ClassificationTask
from featherpress.compress.tasks.detection.task import DetectionTask

__all__ = [
    "ClassificationTask",
    "DetectionTask",
    "EvaluationResult",
    "LabelContext",
    "LossContext",
    "Outputs",
    "PriorContext",
    "Split",
    "Task",
    "TaskLoss",
    "format_metric",
    "task_of",
]


def task_of(recipe: Recipe) -> Task:
    """Return the task that a recipe's data are for."""
    return DetectionTask(recipe) if recipe.data.task == "detection" else ClassificationTask(recipe)
