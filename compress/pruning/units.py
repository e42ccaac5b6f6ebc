"""Units, the channels that can only go together, and what a model costs with so many of each kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, gcd, lcm, prod

import numpy as np
from numpy.typing import NDArray

from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.trace import Named, Trace

#: The fewest channels that an axis is cut to.
_FEWEST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """An amount that a quantity may not exceed, in the whole model or in the modules of a component."""

    name: str
    quantity: str
    amount: int
    #: Paths of the modules that are counted, None for all; of tensors of several owners all must be among them.
    modules: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Units that are alike: each has as many channels on the same axes, so that they are chosen by importance alone."""

    units: Ids
    #: Cut at most down to so many, and in steps of so many.
    least: int
    step: int
    #: (array, channels of one unit on it).
    places: tuple[tuple[int, int], ...]
    names: list[str]

    def __len__(self) -> int:
        return len(self.units)

    @property
    def floored(self) -> str:
        """Why it can be cut no further than to its least; nothing where that is as few as an axis may have."""
        if self.least < len(self):
            return "cut as far as floor and multiples allow" if self.least > _FEWEST else ""
        return (
            "its width is no multiple, as asked" if len(self) % self.step else "already as narrow as the floor allows"
        )

    def allowed(self, many: int) -> int:
        """Return the most units that may stay of so many: whole steps, and not below the least."""
        return max(many // self.step * self.step, self.least)


class Terms:
    """A cost as a sum of products of axes' lengths."""

    def __init__(self, terms: Mapping[tuple[int, ...], int], one: int) -> None:
        most = max(map(len, terms), default=0)
        rows = [(*factors, *[one] * (most - len(factors))) for factors in terms]
        self.factors = np.array(rows, dtype=np.int64).reshape(len(rows), most)
        self.amounts = np.array(list(terms.values()), dtype=np.int64)

    def total(self, lengths: Ids) -> int:
        """Return the cost with axes of these lengths."""
        return int((self.amounts * lengths[self.factors].prod(axis=1)).sum())


class Space:
    """All that can be cut: families of units, the axes that they are on, and the costs."""

    def __init__(
        self,
        trace: Trace,
        tensors: Named,
        *,
        multiple_of: int = 1,
        share: float = 0.1,
    ) -> None:
        self.trace, self.tensors = trace, tensors
        labels = trace.labels
        roots = labels.tied.find(np.arange(labels.size))
        self.locked = labels.locked()
        is_locked = np.isin(roots, np.fromiter(self.locked, dtype=np.int64, count=len(self.locked)))
        free = np.unique(roots[~is_locked])
        #: By label: its unit, -1 for one that stays.
        self.unit_of = np.where(is_locked, -1, np.searchsorted(free, roots))
        self.many = len(free)
        self._arrays: dict[bytes, int] = {}
        self._counts: list[tuple[Ids, Ids]] = []
        self.base: list[int] = []
        self._axis_names: dict[int, list[str]] = {}
        self._terms = self._collect()
        self.families = self._make_families(multiple_of, share)
        matrix = np.zeros((len(self.base) + 1, max(len(self.families), 1)), dtype=np.int64)
        for column, family in enumerate(self.families):
            for array, count in family.places:
                matrix[array, column] = count
        self.matrix = matrix
        self.lengths_of_locked = np.array([*self.base, 1], dtype=np.int64)

    def array(self, ids: Ids) -> int:
        """Return the number of an axis; axes of the same units have one."""
        units = np.sort(self.unit_of[ids])
        key = units.tobytes()
        found = self._arrays.get(key)
        if found is None:
            found = self._arrays[key] = len(self.base)
            self._counts.append(self._count(ids))
            self.base.append(int((units < 0).sum()))
        return found

    def _collect(self) -> list[tuple[str, tuple[str, ...], tuple[int, ...], int]]:
        """List the terms of all costs: quantity, the modules it belongs to, factors and amount."""
        terms: list[tuple[str, tuple[str, ...], tuple[int, ...], int]] = []
        for key, (tensor, names) in self.tensors.items():
            axes = self.trace.params[key]
            factors = tuple(self.array(ids) for ids in axes if ids is not None)
            for axis, ids in enumerate(axes):
                if ids is not None:
                    self._axis_names.setdefault(self.array(ids), []).append(f"{names[0]}[{axis}]")
            fixed = prod(size for size, ids in zip(tensor.shape, axes, strict=True) if ids is None)
            places = tuple(name.rpartition(".")[0] for name in names)
            terms.append(("bytes", places, factors, fixed * tensor.itemsize))
            if key in self.trace.parameters:
                terms.append(("params", places, factors, fixed))
        for work in self.trace.work:
            factors = tuple(self.array(ids) for ids in work.factors)
            fixed = work.macs // prod(len(ids) for ids in work.factors)
            assert fixed * prod(len(ids) for ids in work.factors) == work.macs
            terms.append(("macs", (work.path,), factors, fixed))
        return terms

    def _count(self, ids: Ids) -> tuple[Ids, Ids]:
        """Return the units on an axis, and how many channels each has there."""
        units = self.unit_of[ids]
        return np.unique(units[units >= 0], return_counts=True)

    def _make_families(self, multiple_of: int, share: float) -> list[Family]:
        places: list[list[tuple[int, int]]] = [[] for _ in range(self.many)]
        for array, (units, counts) in enumerate(self._counts):
            for unit, count in zip(units.tolist(), counts.tolist(), strict=True):
                places[unit].append((array, count))
        groups: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for unit, own in enumerate(places):
            groups.setdefault(tuple(own), []).append(unit)
        narrow = self._narrowest()
        return [
            self._make_family(np.array(alike), own, multiple_of, share, least=1 if narrow[alike].min() > 1 else _FEWEST)
            for own, alike in groups.items()
        ]

    def _narrowest(self) -> Ids:
        """Return how many channels each unit has on the axis where they are fewest."""
        narrow = np.full(self.many, 2**31, dtype=np.int64)
        arrays = {ids.tobytes(): ids for ids in self.trace.arrays}
        for units, counts in (*self._counts, *map(self._count, arrays.values())):
            narrow[units] = np.minimum(narrow[units], counts)
        return narrow

    def _make_family(
        self, units: Ids, places: tuple[tuple[int, int], ...], multiple_of: int, share: float, *, least: int
    ) -> Family:
        """Make a family of which all stay where no step is both a multiple and a cut."""
        step = lcm(*(multiple_of // gcd(multiple_of, count) for _, count in places))
        floor = max(least, ceil(share * len(units)))
        least = ceil(floor / step) * step
        if len(units) % step or len(units) <= least or not places:
            least = len(units)
        names = dict.fromkeys(name for array, _ in places for name in self._axis_names.get(array, ()))
        return Family(units=units, least=least, step=step, places=places, names=list(names))

    def terms(self, limit: Limit) -> Terms:
        """Add up the terms of a limited quantity."""
        sums: dict[tuple[int, ...], int] = {}
        for quantity, places, factors, amount in self._terms:
            inside = limit.modules is None or all(place in limit.modules for place in places)
            if quantity == limit.quantity and inside:
                key = tuple(sorted(factors))
                sums[key] = sums.get(key, 0) + amount
        return Terms(sums, len(self.base))

    def lengths(self, kept: Ids) -> Ids:
        """Return the length of each axis with so many units of each family."""
        return self.lengths_of_locked + self.matrix @ kept if len(self.families) else self.lengths_of_locked

    def whole(self) -> Ids:
        """Return how many units each family has."""
        return np.array([len(family) for family in self.families], dtype=np.int64)

    def least(self) -> Ids:
        """Return how many units each family has at least."""
        return np.array([family.least for family in self.families], dtype=np.int64)

    def alive(self, kept: Sequence[Ids]) -> NDArray[np.bool_]:
        """Tell by label whether it stays, given the units of each family that do."""
        units = np.zeros(self.many + 1, dtype=bool)
        units[-1] = True  # where -1 points
        for each in kept:
            units[each] = True
        return units[self.unit_of]
