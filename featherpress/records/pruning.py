"""How a model was pruned: what was asked, what was cut together, and what is locked."""

from typing import ClassVar

from pydantic import Field

from featherpress.records.record import Part, Record


class PrunedUnit(Part):
    """Axes that shrink together: `before` units of channels of which `after` are left.

    `axes` are the tensors and their axes, as "conv1.weight[0]"; `channels` is how many positions of the first axis go
    with one unit. `locked` says why it could not shrink, "" where it could.
    """

    axes: tuple[str, ...]
    before: int
    after: int
    channels: int = 1
    locked: str = ""


class PrunedCost(Part):
    """What a model costs."""

    params: int
    macs: int


class Pruning(Record):
    """A pruned model beside its original: every limit with what is left of it, and every unit.

    `uniform` is the largest uniform width within the limits, by limit; `error` the difference from the original without
    the channels that were cut, relative to its signal.
    """

    SCHEMA: ClassVar[str] = "featherpress.pruning/1"

    model: str
    before: PrunedCost
    after: PrunedCost
    limits: dict[str, int]
    slack: dict[str, int]
    uniform: dict[str, int] = Field(default_factory=dict)
    error: float
    units: tuple[PrunedUnit, ...]

    @property
    def locked(self) -> dict[str, list[PrunedUnit]]:
        """What could not shrink, by the reason; the most frequent reason first."""
        found: dict[str, list[PrunedUnit]] = {}
        for unit in self.units:
            if unit.locked:
                found.setdefault(unit.locked, []).append(unit)
        return dict(sorted(found.items(), key=lambda each: -len(each[1])))
