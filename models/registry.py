"""One register of everything that can be built by name, here and in other people's packages."""

import difflib
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors.torch import load_file
from torch import nn

from featherpress.errors import UsageError

#: The group of entry points under which a package names the modules that register its models.
ENTRY_POINTS = "featherpress.models"

Build = Callable[..., nn.Module]

# Settings under the names that published configurations give them.
_PUBLISHED_NAMES = {"out_channel": "out_channels"}

logger = logging.getLogger("featherpress")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """What the register knows of a model: how to build it, and what it is declared to be.

    `settings` are the keyword arguments of `build` with their defaults; `params` is the number of learnable parameters
    at these; `paper` is a title short enough for a table and `source` the whole reference; `weights` are the files
    that trained weights are publicly known under, and `shipped` the one of trained weights that comes with the package.
    """

    name: str
    build: Build
    settings: Mapping[str, Any]
    params: int
    summary: str
    year: int
    paper: str
    source: str
    weights: tuple[str, ...] = ()
    shipped: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a model was built from: a registered name, and every setting with its value."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


_REGISTER: dict[str, ModelEntry] = {}


def register(entry: ModelEntry) -> None:
    """Add an entry to the register.

    Errors: `ValueError` when the name is taken, or a setting's default is of a kind that no weights file can name.
    """
    if entry.name in _REGISTER:
        raise ValueError(f"a model named {entry.name!r} is registered already")
    for key, value in entry.settings.items():
        if not _is_plain(value):
            raise ValueError(
                f"the setting {key!r} of {entry.name} is {value!r} by default, expected None, a number, text, a "
                "truth value or a tuple of these, since weights files name it"
            )
    _REGISTER[entry.name] = entry


def register_model(
    *, params: int, year: int, paper: str, source: str = "", weights: tuple[str, ...] = ()
) -> Callable[[Build], Build]:
    """Register the decorated factory under its own name; its docstring's first line is the summary.

    The factory takes keyword arguments with defaults and returns the module. `params`, `year`, `paper`, `source` and
    `weights` are as in `ModelEntry`.

    Errors: `ValueError` when the name is taken, or a parameter has no default.
    """

    def decorate(build: Build) -> Build:
        name = build.__name__
        parameters = inspect.signature(build).parameters
        for key, parameter in parameters.items():
            if parameter.default is inspect.Parameter.empty:
                raise ValueError(
                    f"the parameter {key!r} of {name} has no default, so that a name alone cannot build it"
                )
        register(
            ModelEntry(
                name=name,
                build=build,
                settings={key: parameter.default for key, parameter in parameters.items()},
                params=params,
                summary=(inspect.getdoc(build) or name).splitlines()[0],
                year=year,
                paper=paper,
                source=source or f"{paper}, {year}",
                weights=weights,
            )
        )
        return build

    return decorate


def list_models() -> list[str]:
    """Return the names of all registered models, sorted."""
    _import_entry_points()
    return sorted(_REGISTER)


def find_model(name: str) -> ModelEntry:
    """Look a model up by name.

    Errors: `UsageError` that suggests the nearest names.
    """
    known = list_models()
    if name in _REGISTER:
        return _REGISTER[name]
    near = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    raise UsageError(f"no model is named {name!r}; {hint}")


def create_model(name: str, *, pretrained: bool = False, **overrides: Any) -> nn.Module:
    """Build a registered model; keyword arguments override the preset's own.

    Its weights are fresh or, with `pretrained`, the trained ones that come with the package.

    Errors: `UsageError` for an unknown name, an unknown override or one of another kind than its default, a width a
    block cannot take, or `pretrained` where no trained weights are shipped for these settings.
    """
    entry = find_model(name)
    overrides = {key if key in entry.settings else _PUBLISHED_NAMES.get(key, key): overrides[key] for key in overrides}
    for key, value in overrides.items():
        if key not in entry.settings:
            raise UsageError(f"{name} has no setting {key!r}; it has {', '.join(entry.settings)}")
        _check_kind(name, key, value, entry.settings[key])
    trained = shipped_weights(name, overrides) if pretrained else None
    model = entry.build(**overrides)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name} was built as a {type(model).__name__}, expected a torch.nn.Module")
    if trained is not None:
        model.load_state_dict(load_file(trained))
    model.__dict__["_origin"] = Origin(name=name, settings={**entry.settings, **overrides})
    return model


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


def origin_of(model: nn.Module) -> Origin | None:
    """Return what `create_model` built this model from, copies included; None for a model of other making."""
    origin: Origin | None = model.__dict__.get("_origin")
    return origin


def forget_origin(model: nn.Module) -> None:
    """Make a model one of other making, as it no longer is what `create_model` builds."""
    model.__dict__.pop("_origin", None)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _check_kind(name: str, key: str, value: object, default: object) -> None:
    """Refuse a setting of another kind than its default, and one that no weights file can name."""
    same = default is None or type(value) is type(default) or (type(value), type(default)) == (int, float)
    if not (same and _is_plain(value)):
        raise UsageError(f"{key} of {name} is {default!r} by default, got {value!r}, which is of another kind")


@cache
def _import_entry_points() -> None:
    """Import the modules that installed packages name; one that cannot be imported is left out with a warning."""
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:  # other people's code: whatever it raises, our own models stay usable
            logger.warning("the models of %s were left out, since importing them failed: %s", point.value, error)
