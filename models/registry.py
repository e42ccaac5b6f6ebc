"""One register of everything that can be built by name."""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from featherpress.errors import UsageError

__all__ = ["ModelEntry", "create_model", "find_model", "list_models", "register", "register_model"]

Build = Callable[..., nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """What the register knows of a model: how to build it and what it is declared to cost.

    `settings` are the keyword arguments `build` takes; `params` is the number of learnable parameters at their
    defaults; `source` the paper or document.
    """

    name: str
    build: Build
    settings: tuple[str, ...]
    params: int
    summary: str
    source: str


_REGISTER: dict[str, ModelEntry] = {}


def register(entry: ModelEntry) -> None:
    """Add an entry to the register.

    Errors: `ValueError` when the name is taken.
    """
    if entry.name in _REGISTER:
        raise ValueError(f"a model named {entry.name!r} is registered already")
    _REGISTER[entry.name] = entry


def register_model(*, params: int, source: str) -> Callable[[Build], Build]:
    """Register the decorated factory under its own name; its docstring's first line is the summary.

    The factory takes keyword arguments with defaults and returns the module.

    Errors: `ValueError` when the name is taken.
    """

    def decorate(build: Build) -> Build:
        name = build.__name__
        summary = (inspect.getdoc(build) or name).splitlines()[0]
        settings = tuple(inspect.signature(build).parameters)
        entry = ModelEntry(name=name, build=build, settings=settings, params=params, summary=summary, source=source)
        register(entry)
        return build

    return decorate


def list_models() -> list[str]:
    """Return the names of all registered models, sorted."""
    return sorted(_REGISTER)


def find_model(name: str) -> ModelEntry:
    """Look a model up by name.

    Errors: `UsageError` that suggests the nearest names.
    """
    if name in _REGISTER:
        return _REGISTER[name]
    near = difflib.get_close_matches(name, _REGISTER, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(list_models())}"
    raise UsageError(f"no model is named {name!r}; {hint}")


def create_model(name: str, *, pretrained: bool = False, **overrides: Any) -> nn.Module:
    """Build a registered model with fresh weights; keyword arguments override the preset's own.

    Errors: `UsageError` for an unknown name, an unknown override, a width a block cannot take, or `pretrained=True`,
    since no trained weights are shipped yet.
    """
    entry = find_model(name)
    for key in overrides:
        if key not in entry.settings:
            raise UsageError(f"{name} has no setting {key!r}; it has {', '.join(entry.settings)}")
    if pretrained:
        raise UsageError(f"no trained weights are shipped for {name}; load your own with load_weights(model, path)")
    return entry.build(**overrides)
