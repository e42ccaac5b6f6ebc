"""Tasks: how a model's outputs are named, supervised and scored. The trainer knows no more of them."""

from featherpress.compress.recipes import Recipe
from featherpress.compress.tasks.base import Task
from featherpress.compress.tasks.classification.task import ClassificationTask
from featherpress.compress.tasks.detection.task import DetectionTask


def task_of(recipe: Recipe) -> Task:
    """Return the task that a recipe's data are for."""
    return DetectionTask(recipe) if recipe.data.task == "detection" else ClassificationTask(recipe)
