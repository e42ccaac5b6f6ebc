"""Units, the channels that can only go together, and what a model costs with so many of each kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd, lcm, prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.tracing import Trace

#: The largest product of factors that is followed.
_FACTORS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """An amount that a quantity may not exceed, in the whole model or in the modules of a component."""

    name: str
    quantity: str
    amount: int
    #: Paths of the modules that are counted, None for all; of tensors of several owners all must be among them.
    modules: frozenset[str] | None = None


@dataclass(slots=True)
class Family:
    """Units that are alike: each has as many channels on the same axes, so that they are chosen by importance alone."""

    units: NDArray[np.int64]
    #: Cut at most down to so many, and in steps of so many.
    least: int = 1
    step: int = 1
    #: (array, channels of one unit on it).
    places: tuple[tuple[int, int], ...] = ()
    names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.units)


class Terms:
    """A cost as a sum of products of axes' lengths."""

    def __init__(self, terms: Mapping[tuple[int, ...], int], one: int) -> None:
        rows = [(*factors, *[one] * (_FACTORS - len(factors))) for factors in terms]
        self.factors = np.array(rows, dtype=np.int64).reshape(-1, _FACTORS)
        self.amounts = np.array(list(terms.values()), dtype=np.int64)

    def total(self, lengths: Ids) -> int:
        """Return the cost with axes of these lengths."""
        return int((self.amounts * lengths[self.factors].prod(axis=1)).sum())


class Space:
    """All that can be cut: families of units, the axes that they are on, and the costs.

    `tensors` are the model's by name of each owner; `reasons` are locks beside those of the trace, by label.
    """

    def __init__(
        self,
        trace: Trace,
        tensors: Mapping[int, tuple[Tensor, tuple[str, ...]]],
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
        terms = self._collect()
        self.families = self._make_families(multiple_of, share)
        matrix = np.zeros((len(self.base) + 1, max(len(self.families), 1)), dtype=np.int64)
        for column, family in enumerate(self.families):
            for array, count in family.places:
                matrix[array, column] = count
        self.matrix = matrix
        self.lengths_of_locked = np.array([*self.base, 1], dtype=np.int64)
        self._terms = terms

    def array(self, ids: Ids) -> int:
        """Return the number of an axis; axes of the same units have one."""
        units = np.sort(self.unit_of[ids])
        key = units.tobytes()
        found = self._arrays.get(key)
        if found is None:
            found = self._arrays[key] = len(self.base)
            names, counts = np.unique(units[units >= 0], return_counts=True)
            self._counts.append((names, counts))
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
            if self._is_parameter(key):
                terms.append(("params", places, factors, fixed))
        for work in self.trace.work:
            factors = tuple(self.array(ids) for ids in work.factors)
            fixed = work.macs // prod(len(ids) for ids in work.factors)
            assert fixed * prod(len(ids) for ids in work.factors) == work.macs
            terms.append(("macs", (work.path,), factors, fixed))
        return terms

    def _is_parameter(self, key: int) -> bool:
        return key in self.trace.parameters

    def _make_families(self, multiple_of: int, share: float) -> list[Family]:
        costly = len(self.base)
        on: list[list[tuple[int, int]]] = [[] for _ in range(self.many)]
        for array, (units, counts) in enumerate(self._counts):
            for unit, count in zip(units.tolist(), counts.tolist(), strict=True):
                on[unit].append((array, count))
        narrow = np.full(self.many, 2**31, dtype=np.int64)
        seen = set()
        for ids in self.trace.arrays:
            key = ids.tobytes()
            if key not in seen:
                seen.add(key)
                units = self.unit_of[ids]
                names, counts = np.unique(units[units >= 0], return_counts=True)
                narrow[names] = np.minimum(narrow[names], counts)
        groups: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for unit, own in enumerate(on):
            groups.setdefault(tuple(own), []).append(unit)
            narrow[unit] = min([narrow[unit], *(count for _, count in own)])
        assert costly == len(self.base)
        families = []
        for places, alike in groups.items():
            units = np.array(alike)
            least = 1 if int(narrow[units].min()) > 1 else 2
            step = lcm(*(multiple_of // gcd(multiple_of, count) for _, count in places)) if places else 1
            family = Family(units=units, step=step, places=places)
            family.names = list(dict.fromkeys(name for array, _ in places for name in self._axis_names.get(array, ())))
            floor = max(least, -int(-share * len(units) // 1))
            family.least = min(-(-floor // step) * step, len(units))
            if len(units) % step or len(units) <= family.least or not places:
                family.least = len(units)
            families.append(family)
        return families

    def terms(self, limit: Limit) -> Terms:
        """Add up the terms of a limited quantity."""
        sums: dict[tuple[int, ...], int] = {}
        for quantity, places, factors, amount in self._terms:
            inside = limit.modules is None or all(place in limit.modules for place in places)
            if quantity == limit.quantity and inside:
                if len(factors) > _FACTORS:
                    raise AssertionError(f"{len(factors)} axes can shrink in one product")
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
