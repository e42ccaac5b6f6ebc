"""Models named on a command line: one of the zoo, or anyone's factory."""

import ast
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from torch import nn

from featherpress.errors import UsageError
from featherpress.models.creation import create_model

_WORDS = {"true": True, "false": False}
# Somebody's module may raise anything; one that exits must not make an audit succeed.
_ANYTHING = (Exception, SystemExit)


def load_factory(name: str, settings: Mapping[str, Any] | None = None) -> nn.Module:
    """Build the model of a name: `featherface_v2`, or `package.module:factory`, called with `settings` alone.

    The working directory is searched for the module too. `weights` and `weights_backbone` may be `"none"` for None,
    which TOML cannot write: torchvision's models for detection and segmentation fetch some unless told so.

    Errors: `UsageError` for a name, module or factory that is not there, or that does not return a module.
    """
    if ":" not in name:
        return create_model(name, **(settings or {}))
    factory = import_factory(name)
    try:
        with redirect_stdout(sys.stderr):  # our own output may be JSON
            model = factory(**{key: _read_setting(key, value) for key, value in (settings or {}).items()})
    except _ANYTHING as error:
        given = f"with {', '.join(settings)}" if settings else "without arguments"
        raise UsageError(f"calling {name!r} {given} failed: {_reason(error)}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name!r} returned a {type(model).__name__}, expected a torch.nn.Module")
    return model


def read_argument(text: str) -> Any:
    """Read what a command line or a table says of an argument: Python's literals, true and false, else the text."""
    try:
        return _WORDS[text] if text in _WORDS else ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _read_setting(key: str, value: Any) -> Any:
    return None if key in {"weights", "weights_backbone"} and value == "none" else value


def import_factory(name: str) -> Callable[..., Any]:
    """Import the function that `package.module:factory` or `package.module:Class.method` names.

    Errors: `UsageError` for a module that cannot be imported, and for what is not there or is no function.
    """
    module_name, _, factory_name = name.rpartition(":")
    if not factory_name:
        raise UsageError(f"expected the name of a zoo model or package.module:factory, got {name!r}")
    module = import_from_here(module_name, purpose=repr(name))
    factory: object = module
    for part in factory_name.split("."):
        factory = getattr(factory, part, None)
    if not callable(factory):
        what = "has no" if factory is None else f"has a {type(factory).__name__}, expected a function, under the name"
        raise UsageError(f"the module {module_name!r} {what} {factory_name!r}")
    found: Callable[..., Any] = factory
    return found


def import_offline(name: str) -> tuple[Callable[..., Any] | None, dict[str, Any]]:
    """Import a factory, None for a model of the zoo, with the arguments by which it fetches no weights.

    Packages that load from a hub are told to stay offline, which they read when they are imported.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    factory = import_factory(name) if ":" in name else None
    try:
        takes = inspect.signature(factory).parameters if factory else {}
    except ValueError:
        takes = {}
    return factory, {"weights_backbone": "none"} if "weights_backbone" in takes else {}


def import_from_here(name: str, *, purpose: str) -> object:
    """Import a module by its name, or by its file as `folder/module.py`; the working directory is searched too.

    Errors: `UsageError` for one that cannot be imported, and says which Python was asked.
    """
    folder, stem = (Path(name).parent, Path(name).stem) if name.endswith(".py") else (Path(), name)
    if not all(part.isidentifier() for part in stem.split(".")):
        raise UsageError(f"expected the name of a zoo model or package.module:factory, got {purpose}")
    here = str(folder.resolve())
    sys.path.insert(0, here)
    try:
        with redirect_stdout(sys.stderr):  # our own output may be JSON
            return importlib.import_module(stem)
    except _ANYTHING as error:
        where = f" (by {sys.executable})" if isinstance(error, ModuleNotFoundError) else ""
        raise UsageError(f"cannot import {name!r} for {purpose}: {_reason(error)}{where}") from error
    finally:
        sys.path.remove(here)


def _reason(error: BaseException) -> str:
    """Return an error of somebody's code in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
