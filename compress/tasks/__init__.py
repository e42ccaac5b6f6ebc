"""Tasks: how a model's outputs are named, supervised and scored. The trainer knows no more of them."""

from featherpress.compress.recipes import Recipe
from featherpress.compress.recipes.kinds import find_suited_task
from featherpress.compress.tasks.base import Task


def task_of(recipe: Recipe) -> Task:
    """Return the task that a recipe's data are for."""
    task: Task = find_suited_task(recipe.data, recipe.student.model)(recipe)
    return task
