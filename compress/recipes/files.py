"""Recipes read from and written to TOML files."""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from featherpress.compress.distillation.losses.registry import list_losses
from featherpress.compress.recipes.kinds import find_suited_task, find_task, list_kinds
from featherpress.compress.recipes.schema import Recipe
from featherpress.errors import RecipeError
from featherpress.validation import dotted, explain, first_finding, suggest

SHARED_VARIABLE = "FEATHERPRESS_SHARED"
SHARED_DEFAULT = "../shared"
_TAG = 3  # where pydantic puts the kind of a term: distillation.losses.NAME.KIND.key

# The table of a task that `package.module:MyTask` names is known to that class alone.
_ANY_TASK = {"type": "object", "properties": {"kind": {"type": "string", "pattern": ":"}}, "required": ["kind"]}

# Nesting too deep for the stack and numbers too long for Python are refused like invalid TOML.
_NO_TOML = (tomllib.TOMLDecodeError, RecursionError, ValueError)


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = files("featherpress.compress.recipes")
    return sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path, *, settings: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name, or one of your own by path, and apply `key=value` settings to it.

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
        text = text.replace(f"${{{SHARED_VARIABLE}}}", SHARED_DEFAULT).replace(f"${SHARED_VARIABLE}", SHARED_DEFAULT)
    path = Path(os.path.expandvars(text))
    with suppress(RuntimeError):  # where ~ is nobody's, it is a name like any other
        path = path.expanduser()
    return path


def recipe_to_toml(recipe: Recipe) -> str:
    """Write a recipe, defaults included, as TOML that `load_recipe` reads back.

    Of `losses` the weights that were given are written: detectors of other packages weigh their losses themselves.
    """
    content = recipe.model_dump(mode="json", exclude_none=True)
    if find_suited_task(recipe.data, recipe.student.model).layout != "priors":
        content["losses"] = recipe.losses.model_dump(mode="json", exclude_unset=True)
    return tomli_w.dumps(content)


def recipe_schema() -> str:
    """Return the JSON Schema of recipes, for editors that complete and check TOML."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Recipe.model_json_schema()
    for definition in schema["$defs"].values():
        if "loss" in definition.get("properties", {}):
            # A table that changes a default term need not repeat its loss.
            definition["required"].remove("loss")
    schema["properties"]["data"] = {"anyOf": [*(_schema_of(task, schema["$defs"]) for task in _tasks()), _ANY_TASK]}
    losses = schema["$defs"]["DistillationRecipe"]["properties"]["losses"]
    for terms in losses["patternProperties"].values():
        terms["anyOf"] = terms.pop("oneOf")
        del terms["discriminator"]
    losses["additionalProperties"] = False
    return json.dumps(schema, indent=2) + "\n"


def _tasks() -> list[Any]:
    """List the tasks that are registered, each once."""
    return list(dict.fromkeys(map(find_task, list_kinds())))


def _schema_of(task: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a task's `[data]` table; what it refers to is put among the definitions."""
    own: dict[str, Any] = task.Data.model_json_schema()
    definitions |= own.pop("$defs", {})
    return own


def _read(name_or_path: str | Path) -> tuple[str, str]:
    name = str(name_or_path)
    if name in shipped_recipes():
        return files("featherpress.compress.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8"), name
    path = Path(name)
    if not path.is_file():
        raise RecipeError(f"there is no recipe {name!r}; shipped are {', '.join(shipped_recipes())}, or give a path")
    try:
        return path.read_text(encoding="utf-8-sig"), name
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
        recipe = Recipe.model_validate(content)
        recipe_to_toml(recipe).encode()  # a run must be able to write what it began with
        return recipe
    except UnicodeEncodeError as error:
        raise RecipeError(
            f"{source} holds text that is no Unicode, {error.object[error.start : error.end]!r}"
        ) from error
    except ValidationError as error:
        first, more = first_finding(error)
        place = _without_tag(first["loc"])
        if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
            sentence = f"{dotted(place)}: {_no_such_loss(first['input'])}"
        else:
            sentence = explain(first, place, known=_fields_at(first["loc"][:-1], content))
        raise RecipeError(f"{source}: {sentence}{more}") from error


def _without_tag(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Remove what pydantic adds to a location: the kind of loss it chose for a term, and the key of a dict."""
    shown = [part for part in place if part != "[key]"]
    if len(shown) > _TAG and shown[:2] == ["distillation", "losses"]:
        del shown[_TAG]
    return tuple(shown)


def _no_such_loss(term: object) -> str:
    name = term.get("loss") if isinstance(term, Mapping) else None
    if name is None:
        return f"a term needs a `loss`, one of {', '.join(list_losses())}"
    return f"no loss is named {name!r}; {suggest(str(name), list_losses())}"


def _fields_at(place: tuple[int | str, ...], content: Mapping[str, Any]) -> list[str]:
    """List the keys of the table at a location; numbers and names of terms on the way are passed over."""
    models: list[type[BaseModel]] = [Recipe]
    if place[:1] == ("data",) and isinstance(content["data"], Mapping) and "kind" in content["data"]:
        models, place = [find_task(content["data"]["kind"]).Data], place[1:]
    for part in place:
        kinds = [kind for kind in models if "loss" in kind.model_fields]
        tagged = [kind for kind in kinds if get_args(kind.model_fields["loss"].annotation) == (part,)]
        here = next((kind.model_fields[str(part)] for kind in models if str(part) in kind.model_fields), None)
        if tagged:
            models = tagged
        elif here is not None and not kinds:
            models = list(_models_in(here.annotation))
    return [key for kind in models[:1] for key in kind.model_fields]


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
