"""Recipes: what to train, on what, for how long; TOML files, strictly checked."""

from featherpress.compress.recipes.files import load_recipe, recipe_schema, recipe_to_toml, shipped_recipes
from featherpress.compress.recipes.schema import (
    DataRecipe,
    DistillationRecipe,
    LossRecipe,
    Recipe,
    ScheduleRecipe,
    StudentRecipe,
    TeacherRecipe,
)
from featherpress.compress.recipes.terms import Term

__all__ = [
    "DataRecipe",
    "DistillationRecipe",
    "LossRecipe",
    "Recipe",
    "ScheduleRecipe",
    "StudentRecipe",
    "TeacherRecipe",
    "Term",
    "load_recipe",
    "recipe_schema",
    "recipe_to_toml",
    "shipped_recipes",
]
