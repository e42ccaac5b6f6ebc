"""Recipes in and out of TOML files."""

import difflib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from featherpress.compress.recipes.schema import Recipe
from featherpress.errors import RecipeError

__all__ = ["expand_path", "load_recipe", "recipe_to_toml", "shipped_recipes"]

SHARED_VARIABLE = "FEATHERPRESS_SHARED"
_SHARED_DEFAULT = "../shared"

# Nesting beyond the stack and numbers beyond what Python reads are no TOML of ours either.
_NO_TOML = (tomllib.TOMLDecodeError, RecursionError, ValueError)


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = files("featherpress.compress.recipes")
    return sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path, *, settings: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name, or one of your own by path, with `key=value` settings laid over it.

    A setting's key is dotted (`schedule.epochs`), its value TOML; a value that is not TOML is taken as text.

    Errors: `RecipeError` that names the file and the key.
    """
    text, source = _read(name_or_path)
    try:
        content = tomllib.loads(text)
    except _NO_TOML as error:
        raise RecipeError(f"{source} is not valid TOML: {str(error)[:200]}") from error
    for setting in settings:
        _lay_over(content, setting)
    return _validate(content, source)


def expand_path(text: str) -> Path:
    """Expand `~` and environment variables; FEATHERPRESS_SHARED is ../shared unless set."""
    if SHARED_VARIABLE not in os.environ:
        text = text.replace(f"${{{SHARED_VARIABLE}}}", _SHARED_DEFAULT).replace(f"${SHARED_VARIABLE}", _SHARED_DEFAULT)
    return Path(os.path.expandvars(text)).expanduser()


def recipe_to_toml(recipe: Recipe) -> str:
    """Write a recipe, defaults included, as TOML that `load_recipe` reads back."""
    return "\n".join(_tables(recipe.model_dump(mode="json", exclude_none=True), prefix="")) + "\n"


def _read(name_or_path: str | Path) -> tuple[str, str]:
    name = str(name_or_path)
    if name in shipped_recipes():
        return files("featherpress.compress.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8"), name
    path = Path(name)
    if not path.is_file():
        raise RecipeError(f"there is no recipe {name!r}; shipped are {', '.join(shipped_recipes())}, or give a path")
    try:
        return path.read_text(encoding="utf-8"), name
    except UnicodeDecodeError as error:
        raise RecipeError(f"{name} is not a text file in UTF-8") from error


def _lay_over(content: dict[str, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise RecipeError(f"a setting is written key=value, got {setting!r}")
    try:
        parsed: object = tomllib.loads(f"value = {value}")["value"]
    except _NO_TOML:
        parsed = value
    *tables, last = key.strip().split(".")
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise RecipeError(f"{setting!r} sets something inside {table!r}, which is not a table")
    content[last] = parsed


def _validate(content: Mapping[str, Any], source: str) -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the recipe"
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"{source}: a recipe has no key {where}{_nearest(first['loc'])}") from error
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise RecipeError(f"{source}: {where}: {first['msg'].removeprefix('Value error, ')}{more}") from error


def _nearest(place: tuple[int | str, ...]) -> str:
    """Suggest the key that was meant, if one is near."""
    fields = Recipe.model_fields
    for part in place[:-1]:
        kinds = get_args(fields[str(part)].annotation) or (fields[str(part)].annotation,)
        fields = next(kind.model_fields for kind in kinds if hasattr(kind, "model_fields"))
    near = difflib.get_close_matches(str(place[-1]), fields, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(fields)}"


def _tables(content: Mapping[str, Any], *, prefix: str) -> list[str]:
    """Write plain values first, then each table under its heading."""
    values = {key: value for key, value in content.items() if not isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    for key, value in content.items():
        if isinstance(value, dict):
            heading = f"{prefix}{key}"
            lines += ["", f"[{heading}]", *_tables(value, prefix=f"{heading}.")]
    return lines
