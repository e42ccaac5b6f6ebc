"""One register of the distillation losses by name, and what each needs."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from featherpress.compress.distillation.losses import features, outputs
from featherpress.errors import UsageError

Need = Literal["features", "logits", "labels", "priors", "boxes"]
"""Tapped features, class logits, class labels, a detector's outputs at its priors, labelled boxes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossEntry:
    """What the register knows of a loss.

    `adapter` tells whether the student's features are brought to the teacher's width by trained weights; `maps` whether
    it compares places, so that features without height and width make no sense.
    """

    name: str
    function: Callable[..., Tensor]
    needs: frozenset[Need]
    adapter: bool = False
    maps: bool = False

    @property
    def summary(self) -> str:
        """The first sentence of the function's docstring."""
        return (self.function.__doc__ or self.name).splitlines()[0]


def _entry(
    name: str, function: Callable[..., Tensor], *needs: Need, adapter: bool = False, maps: bool = False
) -> LossEntry:
    return LossEntry(name=name, function=function, needs=frozenset(needs), adapter=adapter, maps=maps)


_REGISTER = {
    entry.name: entry
    for entry in (
        _entry("pkd", features.pkd, "features", adapter=True),
        _entry("cwd", features.cwd, "features", adapter=True, maps=True),
        _entry("fitnets", features.fitnets, "features", adapter=True),
        _entry("attention", features.attention_transfer, "features", maps=True),
        _entry("mgd", features.mgd, "features", adapter=True, maps=True),
        _entry("fgd", features.fgd, "features", "boxes", adapter=True, maps=True),
        _entry("margin", outputs.margin, "logits", "priors"),
        _entry("regression", outputs.regression, "priors"),
        _entry("kl", outputs.kl, "logits"),
        _entry("dkd", outputs.dkd, "logits", "labels"),
    )
}


def list_losses() -> list[str]:
    """Return the names of all losses, sorted."""
    return sorted(_REGISTER)


def find_loss(name: str) -> LossEntry:
    """Look a loss up by name.

    Errors: `UsageError` that suggests the nearest name.
    """
    if name in _REGISTER:
        return _REGISTER[name]
    near = difflib.get_close_matches(name, _REGISTER, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(list_losses())}"
    raise UsageError(f"no distillation loss is named {name!r}; {hint}")
