"""Recipes: what to train, on what, for how long; TOML files, strictly checked."""

from typing import TYPE_CHECKING

from featherpress.lazy import import_later

if TYPE_CHECKING:
    from featherpress.compress.recipes.data import DataRecipe
    from featherpress.compress.recipes.files import load_recipe, recipe_schema, recipe_to_toml, shipped_recipes
    from featherpress.compress.recipes.schema import (
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

__getattr__ = import_later(
    __name__,
    {
        "data": ("DataRecipe",),
        "files": ("load_recipe", "recipe_schema", "recipe_to_toml", "shipped_recipes"),
        "schema": (
            "DistillationRecipe",
            "LossRecipe",
            "Recipe",
            "ScheduleRecipe",
            "StudentRecipe",
            "TeacherRecipe",
        ),
        "terms": ("Term",),
    },
)
