"""The registry of models that can be built by name, here and in other packages."""

import difflib
import inspect
import logging
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from featherpress.errors import UsageError
from featherpress.models.zoo import ZOO, ModelEntry

if TYPE_CHECKING:
    from torch import nn

#: The group of entry points under which a package names the modules that register its models.
ENTRY_POINTS = "featherpress.models"

Build = Callable[..., "nn.Module"]

logger = logging.getLogger("featherpress")


_REGISTER: dict[str, ModelEntry] = {entry.name: entry for entry in ZOO}


def register_model(
    *, params: int, year: int, paper: str, source: str = "", weights: tuple[str, ...] = ()
) -> Callable[[Build], Build]:
    """Register the decorated factory under its own name; its docstring's first line is the summary.

    The factory takes keyword arguments with defaults and returns the module. `params`, `year`, `paper`, `source` and
    `weights` are as in `ModelEntry`.

    Errors: `ValueError` when the name is taken, or a parameter has no default, or one that no weights file can name.
    """

    def decorate(build: Build) -> Build:
        name = build.__name__
        settings = {key: each.default for key, each in inspect.signature(build).parameters.items()}
        for key, value in settings.items():
            if value is inspect.Parameter.empty:
                raise ValueError(
                    f"the parameter {key!r} of {name} has no default, so that a name alone cannot build it"
                )
            if not is_plain(value):
                raise ValueError(
                    f"the setting {key!r} of {name} is {value!r} by default, expected None, a number, text, a "
                    "truth value or a tuple of these, since weights files name it"
                )
        if name in _REGISTER:
            raise ValueError(f"a model named {name!r} is registered already")
        _REGISTER[name] = ModelEntry(
            name=name,
            build=build,
            settings=settings,
            params=params,
            summary=(inspect.getdoc(build) or name).splitlines()[0],
            year=year,
            paper=paper,
            source=source or f"{paper}, {year}",
            weights=weights,
        )
        return build

    return decorate


def list_models() -> list[str]:
    """Return the names of all registered models, sorted."""
    _import_entry_points()
    return sorted(_REGISTER)


def find_model(name: str) -> ModelEntry:
    """Return the entry of a model by name.

    Errors: `UsageError` that suggests the nearest names, or says that it is a file's.
    """
    known = list_models()
    if name in _REGISTER:
        return _REGISTER[name]
    if Path(name).is_file():
        raise UsageError(f"{name} is a file, and what is asked for here is a model: package.module:factory is one")
    near = difflib.get_close_matches(name, known, n=2)
    listed = f"there are {', '.join(known)}; yours is package.module:factory"
    hint = f"did you mean {' or '.join(near)}?" if near else listed
    raise UsageError(f"no model is named {name!r}; {hint}")


def shipped_weights(name: str, settings: Mapping[str, Any] = MappingProxyType({})) -> Path:
    """Return the file of the trained weights that come with the package for a preset; they fit its own settings alone.

    Errors: `UsageError` for an unknown name, and where there are none for these settings.
    """
    entry = find_model(name)
    if entry.shipped is None:
        have = ", ".join(name for name in list_models() if _REGISTER[name].shipped)
        raise UsageError(
            f"no trained weights are shipped for {name} (they are for {have or 'none'}); load your own with "
            "load_weights(model, path)"
        )
    changed = [f"{key}={value!r}" for key, value in settings.items() if value != entry.settings[key]]
    if changed:
        raise UsageError(f"the weights shipped for {name} fit it as it is, not with {', '.join(changed)}")
    return entry.shipped


def is_plain(value: object) -> bool:
    """Return whether a setting is of a kind that weights files can name."""
    if isinstance(value, tuple):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


@cache
def _import_entry_points() -> None:
    """Import the modules that installed packages name; one that cannot be imported is left out with a warning."""
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:  # other people's code: whatever it raises, our own models stay usable
            logger.warning("the models of %s were left out, since importing them failed: %s", point.value, error)
