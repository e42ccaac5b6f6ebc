"""The labels of a copy's tensors while it runs: what the rules of operators read and write."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from featherpress.compress.pruning.labels import Axes, Ids
from featherpress.compress.pruning.origins import Origins
from featherpress.compress.pruning.trace import Decisions, Key, Trace


class Tracer:
    """Labels of tensors, by id, and what is decided on the way.

    `originals` maps the ids of a copy's parameters and buffers to those of the original's, `kept` tells which labels a
    cut leaves. With `values` tensors live no longer than the forward wants them to.
    """

    def __init__(
        self,
        trace: Trace,
        decisions: Decisions,
        *,
        originals: Mapping[int, int],
        kept: Callable[[Ids], Ids],
        values: bool,
    ) -> None:
        self.trace, self.decisions, self.labels = trace, decisions, trace.labels
        self.originals, self.kept, self.values = originals, kept, values
        self.axes: dict[int, Axes] = {}
        #: Of transposed weights: the original's tensor.
        self.weights: dict[int, int] = {}
        #: What makes good for numbers that change, which only a comparison finds.
        self.origins = Origins(wanted=trace.labels.checks and not values)
        self.held: list[Tensor] = []
        #: Where we are.
        self.key: Key = ("", 0, "", 0)

    def of(self, tensor: Tensor) -> Axes:
        """Return the labels of a tensor's axes."""
        found = self.axes.get(id(tensor))
        return found if found is not None else (None,) * tensor.dim()

    def hold(self, tensor: Tensor) -> None:
        """Keep a tensor, so that no other gets its id; one with values only for as long as others do."""
        if not self.values:
            self.held.append(tensor)
        elif id(tensor) not in self.axes:
            weakref.finalize(tensor, self.axes.pop, id(tensor), None)

    def give(self, tensor: Tensor, axes: Sequence[Ids | None]) -> None:
        """Set the labels of a tensor; an axis of one position keeps its size."""
        self.hold(tensor)
        if any(each is not None for each in axes):
            plain = tuple(None if size == 1 else each for each, size in zip(axes, tensor.shape, strict=True))
            self.axes[id(tensor)] = plain
        else:
            self.axes.pop(id(tensor), None)

    def lock(self, tensor: Tensor, reason: str) -> None:
        """Lock all axes of a tensor."""
        for ids in self.of(tensor):
            self.labels.lock(ids, reason)

    def follow_weight(self, tensor: Tensor, out: Tensor) -> None:
        """Remember of a transposed weight whose it is."""
        if id(tensor) in self.originals:
            self.weights[id(out)] = self.originals[id(tensor)]

    def owner(self, tensor: Tensor | None) -> int:
        """Return the id of the original's tensor that this is a copy of, or of its transpose; 0 for none."""
        return 0 if tensor is None else self.originals.get(id(tensor), self.weights.get(id(tensor), 0))

    def repeated(self, many: int, place: int) -> Ids:
        """Make labels of an axis that repeats one position; where it is cut it is as long as what is left of them."""
        place_key = (self.key, place)
        made = self.labels.recall(place_key)
        if made is None:
            return self.labels.fresh(many, place_key)
        left = self.kept(made)
        if len(left) != many:
            self.labels.note_fault("it repeats something more often than there are channels")
            return np.full(many, -1, dtype=np.int64)
        return left

    def decide(self, options: Callable[[], Sequence[tuple[Any, int]]], part: int = 0) -> Any:
        """Choose what leaves most units; a later trace does as the first; None where nothing is left to choose."""
        chosen, place = self.decisions.chosen, (self.key, part)
        refused = self.decisions.refused.get(self.key, set())
        if place not in chosen or chosen[place] in refused:
            left = [(units, option) for option, units in options() if option not in refused and units > 1]
            best = max((units for units, _ in left), default=0)
            chosen[place] = next((option for units, option in left if units == best), None)
        return chosen[place]


#: Says what becomes of labels: of a tracer, an operator, its arguments and what it gave.
Rule = Callable[[Tracer, Any, Sequence[Any], dict[str, Any], Any], None]
