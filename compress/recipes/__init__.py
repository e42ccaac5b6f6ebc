"""Recipes: what to train, on what, for how long; TOML files, strictly checked."""

from featherpress.compress.recipes.files import load_recipe, recipe_to_toml, shipped_recipes
from featherpress.compress.recipes.schema import (
    DataRecipe,
    DistillationRecipe,
    LossRecipe,
    Recipe,
    ScheduleRecipe,
    StudentRecipe,
    TeacherRecipe,
)

__all__ = [
    "DataRecipe",
    "DistillationRecipe",
    "LossRecipe",
    "Recipe",
    "ScheduleRecipe",
    "StudentRecipe",
    "TeacherRecipe",
    "load_recipe",
    "recipe_to_toml",
    "shipped_recipes",
]
