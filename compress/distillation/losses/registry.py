"""The registry of distillation losses by name, and what each needs."""

import difflib
from dataclasses import dataclass

from featherpress.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class LossEntry:
    """What the registry knows of a loss.

    `adapter`: trained weights bring the student's features to the teacher's width. `maps`: the loss compares
    positions, so features must have height and width.
    """

    adapter: bool = False
    maps: bool = False


_REGISTER = {
    "pkd": LossEntry(adapter=True),
    "cwd": LossEntry(adapter=True, maps=True),
    "fitnets": LossEntry(adapter=True),
    "attention": LossEntry(maps=True),
    "mgd": LossEntry(adapter=True, maps=True),
    "fgd": LossEntry(adapter=True, maps=True),
    "margin": LossEntry(),
    "regression": LossEntry(),
    "kl": LossEntry(),
    "dkd": LossEntry(),
}


def list_losses() -> list[str]:
    """Return the names of all losses, sorted."""
    return sorted(_REGISTER)


def find_loss(name: str) -> LossEntry:
    """Return a loss by name.

    Errors: `UsageError` that suggests the nearest name.
    """
    if name in _REGISTER:
        return _REGISTER[name]
    near = difflib.get_close_matches(name, _REGISTER, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(list_losses())}"
    raise UsageError(f"no distillation loss is named {name!r}; {hint}")
