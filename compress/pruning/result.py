"""What pruning gives: a smaller model, its cost, and what was cut together or is locked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from featherpress.budgets.counting.costs import Cost
from featherpress.models.pruned import load_pruned as load_pruned  # noqa: PLC0414 (the package's face)
from featherpress.models.saving import save_weights
from featherpress.records.pruning import PrunedCost, PrunedUnit, Pruning


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A pruned model, beside the cost of the original and of the largest uniform width within the limits.

    `model` is of the original's class. `cost` is `count(model)`, at most every limit; `limits` maps each limit to its
    amount, `slack` to what is left of it. `error` is the largest difference from the original without the channels
    that were cut, relative to the signal.
    """

    model: nn.Module = field(repr=False)
    cost: Cost = field(repr=False)
    units: tuple[PrunedUnit, ...] = field(repr=False)
    before: Cost = field(repr=False)
    limits: Mapping[str, int]
    slack: Mapping[str, int]
    uniform: Mapping[str, int]
    error: float

    @property
    def locked(self) -> tuple[PrunedUnit, ...]:
        """The axes that cannot shrink, with the reason."""
        return tuple(unit for unit in self.units if unit.locked)

    def describe(self, name: str) -> Pruning:
        """Return what was cut, and how, as records hold it; `name` is the model's."""
        return Pruning(
            model=name,
            before=PrunedCost(params=self.before.params, macs=self.before.macs),
            after=PrunedCost(params=self.cost.params, macs=self.cost.macs),
            limits=dict(self.limits),
            slack=dict(self.slack),
            uniform=dict(self.uniform),
            error=self.error,
            units=self.units,
        )

    def save(self, path: str | Path) -> None:
        """Write weights and plan to one safetensors file, completely or not at all; `load_pruned` builds it back.

        Errors: UsageError if the model holds what `load_pruned` could not build back.
        """
        save_weights(self.model, path)
