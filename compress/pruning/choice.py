"""Which units stay: importance per cost over a global threshold, and the slack refilled."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featherpress.budgets.counting.replicas import copy_with
from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.units import Limit, Space, Terms

Importance = Literal["l2", "l1", "batchnorm", "taylor"]
Scores = NDArray[np.float64]


def weigh_units(
    space: Space, model: nn.Module, importance: Importance, gradients: Mapping[int, Tensor] | None = None
) -> Scores:
    """Return the importance of each unit: a norm of all weights that go with it.

    `l2` and `l1` are norms of weights, `batchnorm` the mean size of BatchNorm's factors (where a unit has none, `l2`),
    `taylor` the sum of |weight * gradient|.
    """
    scales = _scales(model)
    sums = np.zeros(space.many)
    factors, counts = np.zeros(space.many), np.zeros(space.many)
    for key, (tensor, _) in space.tensors.items():
        if key not in space.trace.parameters or not tensor.is_floating_point():
            continue
        values = _weigh(tensor, importance, (gradients or {}).get(key))
        for axis, ids in enumerate(space.trace.params[key]):
            if ids is None:
                continue
            units = space.unit_of[ids]
            free = units >= 0
            along = values.sum([each for each in range(values.dim()) if each != axis]) if values.dim() > 1 else values
            np.add.at(sums, units[free], along.numpy()[free])
            if key in scales:
                np.add.at(factors, units[free], tensor.detach().double().abs().cpu().numpy()[free])
                np.add.at(counts, units[free], 1)
    scores: Scores = np.sqrt(sums) if importance in {"l2", "batchnorm"} else sums
    if importance == "batchnorm":
        has = counts > 0
        scores[has] = factors[has] / counts[has]
    return scores


def _weigh(tensor: Tensor, importance: Importance, gradient: Tensor | None) -> Tensor:
    """Return what each number of a tensor counts for in its unit's importance."""
    values = tensor.detach().double().cpu()
    if importance == "taylor":
        return torch.zeros_like(values) if gradient is None else (values * gradient.double().cpu()).abs()
    return values.abs() if importance == "l1" else values.square()


def _scales(model: nn.Module) -> set[int]:
    """Return the ids of BatchNorm's weights."""
    kind = nn.modules.batchnorm._BatchNorm
    return {id(each.weight) for each in model.modules() if isinstance(each, kind) and each.weight is not None}


def gather_gradients(
    model: nn.Module, batches: Iterable[Any], loss: Callable[[nn.Module, Any], Tensor]
) -> dict[int, Tensor]:
    """Add up the gradients of a copy over batches; return them by id of the original's parameter."""
    memo: dict[int, Any] = {}
    replica = copy_with(model, lambda tensor: tensor.detach().clone(), memo)
    replica.eval()
    for each in replica.parameters():
        each.requires_grad_(each.is_floating_point())
    for batch in batches:
        loss(replica, batch).backward()  # type: ignore[no-untyped-call]
    found = {id(each): memo[id(each)].grad for each in model.parameters()}
    return {key: gradient for key, gradient in found.items() if gradient is not None}


class Chooser:
    """Chooses how many units of each family stay within limits."""

    def __init__(self, space: Space, limits: Sequence[Limit], scores: Scores) -> None:
        self.space, self.limits = space, limits
        self.terms: list[Terms] = [space.terms(limit) for limit in limits]
        #: Each family's units, most important first, and their importance beside the family's mean, per cost.
        self.order: list[Ids] = []
        self.worth: list[Scores] = []
        weights = self._weights()
        for family, weight in zip(space.families, weights, strict=True):
            own = scores[family.units]
            best = np.argsort(-own, kind="stable")
            self.order.append(family.units[best])
            mean = own.mean()
            normal = own[best] / mean if mean > 0 else np.ones(len(own))
            self.worth.append(normal / weight if weight > 0 else np.full(len(own), np.inf))

    def costs(self, kept: Ids) -> list[int]:
        """Return what is limited, with so many units of each family."""
        lengths = self.space.lengths(kept)
        return [terms.total(lengths) for terms in self.terms]

    def named_costs(self, kept: Ids) -> dict[str, int]:
        """Return the same by the names of the limits."""
        return dict(zip([limit.name for limit in self.limits], self.costs(kept), strict=True))

    def fits(self, kept: Ids) -> bool:
        """Return whether all limits hold."""
        return all(cost <= limit.amount for cost, limit in zip(self.costs(kept), self.limits, strict=True))

    def _weights(self) -> Scores:
        """Return what one unit of each family saves, as a share of what has to be saved."""
        whole = self.space.whole()
        before = self.costs(whole)
        weights = np.zeros(len(whole))
        for place, family in enumerate(self.space.families):
            if family.least == len(family):
                continue
            fewer = whole.copy()
            fewer[place] -= 1
            for cost, was, limit in zip(self.costs(fewer), before, self.limits, strict=True):
                if was > limit.amount:
                    weights[place] += (was - cost) / (was - limit.amount)
        return weights

    def choose(self) -> Ids | None:
        """Return how many units of each family stay; None if not even the fewest fit."""
        whole, least = self.space.whole(), self.space.least()
        if self.fits(whole):
            return whole
        if not self.fits(least):
            return None
        finite = [worth[np.isfinite(worth)] for worth in self.worth]
        marks = np.unique(np.concatenate([*finite, [np.inf]]))
        low, high = 0, len(marks) - 1  # at the last mark all that costs anything is cut to its least
        while low < high:
            middle = (low + high) // 2
            if self.fits(self._above(marks[middle])):
                high = middle
            else:
                low = middle + 1
        return self.refill(self._above(marks[low]))

    def _above(self, mark: float) -> Ids:
        """Return how many units are worth more than a mark, in whole steps and not below the least."""
        kept = []
        for family, worth in zip(self.space.families, self.worth, strict=True):
            kept.append(family.allowed(len(family) if np.isinf(worth).all() else int((worth > mark).sum())))
        return np.array(kept, dtype=np.int64)

    def refill(self, kept: Ids) -> Ids:
        """Give units back, best first, as long as limits hold: costs only rise, so one pass is enough."""
        queue = sorted(
            (-float(self.worth[place][start]), place)
            for place, family in enumerate(self.space.families)
            for start in range(int(kept[place]), len(family), family.step)
        )
        full: set[int] = set()
        for _, place in queue:
            if place in full:
                continue
            more = kept.copy()
            more[place] += self.space.families[place].step
            if self.fits(more):
                kept = more
            else:
                full.add(place)
        return kept

    def uniform(self) -> dict[str, int]:
        """Return what is limited with the largest share of every family that fits, the baseline; empty if none does."""
        low, high, share = 0.0, 1.0, 1.0  # all of it may fit
        found = None
        for _ in range(30):
            kept = np.array(
                [family.allowed(int(len(family) * share)) for family in self.space.families], dtype=np.int64
            )
            if self.fits(kept):
                found, low = kept, share
            else:
                high = share
            share = (low + high) / 2
        return {} if found is None else self.named_costs(found)

    def units(self, kept: Ids) -> list[Ids]:
        """Return the units that stay of each family."""
        return [order[:many] for order, many in zip(self.order, kept.tolist(), strict=True)]
