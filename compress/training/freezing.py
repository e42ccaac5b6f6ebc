"""Freezing: parts of a model that training does not change."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from featherpress.errors import UsageError


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Freeze all weights that match a pattern, directly or through a module that holds them.

    Patterns are shell-style over dotted paths: `backbone`, `backbone.*`, `heads.*.bias`. Returns the modules they
    match, which belong in eval mode, so that their statistics and dropout are frozen too.

    Errors: `UsageError` for a pattern without a match, and when nothing is left to train.
    """
    weights, modules = dict(model.named_parameters()), dict(model.named_modules())
    still: dict[str, nn.Module] = {}
    for pattern in patterns:
        named = [name for name in weights if _matches(name, pattern)]
        parts = {path: module for path, module in modules.items() if path and _matches(path, pattern)}
        if not named and not parts:
            tops = ", ".join(name for name, _ in model.named_children())
            raise UsageError(f"`freeze` names {pattern!r}, which matches no weight; at the top the model has {tops}")
        for name in named:
            weights[name].requires_grad_(False)
        still |= parts
    if weights and not any(weight.requires_grad for weight in weights.values()):
        raise UsageError("`freeze` matches every weight, so nothing is left to train; match fewer")
    return list(still.values())


def normalisations(model: nn.Module) -> list[nn.Module]:
    """List the layers that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _NormBase)]


def _matches(path: str, pattern: str) -> bool:
    return fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}.*")
