"""Models named on a command line: one of the zoo, or anyone's factory."""

import importlib
import sys
from pathlib import Path

from torch import nn

from featherpress.errors import UsageError
from featherpress.models.registry import create_model

__all__ = ["load_target"]


def load_target(target: str) -> nn.Module:
    """Build what a target names: `featherface_v2`, or `package.module:factory`, called without arguments.

    The working directory is searched for the module too.

    Errors: `UsageError` for a name, module or factory that is not there, or that does not return a module.
    """
    module_name, colon, factory_name = target.partition(":")
    if not colon:
        return create_model(target)
    try:
        factory = getattr(_import(module_name), factory_name)
    except ImportError as error:
        raise UsageError(f"cannot import {module_name!r} for the target {target!r}: {error}") from error
    except AttributeError as error:
        raise UsageError(f"the module {module_name!r} has no {factory_name!r}") from error
    if not callable(factory):
        raise UsageError(f"{target!r} is a {type(factory).__name__}, expected a function that returns a model")
    try:
        model = factory()
    except TypeError as error:
        raise UsageError(f"calling {target!r} without arguments failed: {error}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{target!r} returned a {type(model).__name__}, expected a torch.nn.Module")
    return model


def _import(name: str) -> object:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)
