"""What a model is to learn: how its outputs are read, supervised and scored; the engine knows no more of it."""

from featherpress.compress.recipes import Recipe
from featherpress.compress.tasks.base import (
    Evidence,
    LabelEvidence,
    Outputs,
    PriorEvidence,
    Scored,
    Split,
    Supervision,
    Task,
    say_metric,
)
from featherpress.compress.tasks.classification import ClassificationTask
from featherpress.compress.tasks.detection import DetectionTask

__all__ = [
    "ClassificationTask",
    "DetectionTask",
    "Evidence",
    "LabelEvidence",
    "Outputs",
    "PriorEvidence",
    "Scored",
    "Split",
    "Supervision",
    "Task",
    "say_metric",
    "task_of",
]


def task_of(recipe: Recipe) -> Task:
    """Return the task that a recipe's data are for."""
    return DetectionTask(recipe) if recipe.data.task == "detection" else ClassificationTask(recipe)
