"""A model that was followed: what of it can be cut, what is locked, and the copy that a cut leaves."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from featherpress.budgets.counting.replicas import copy_with
from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.running import guarded
from featherpress.compress.pruning.surgery import Cut, set_attributes
from featherpress.compress.pruning.trace import Decisions, Subject, Trace
from featherpress.compress.pruning.units import Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A model that can be cut, and how."""

    subject: Subject
    trace: Trace
    space: Space
    decisions: Decisions

    def cut(self, kept: Sequence[Ids]) -> Cut:
        """Return the cut that leaves these units of each family."""
        found = {place: named_axes(self.trace, self.decisions, place) for place in self.decisions.attributes}
        return Cut(self.trace, self.space.alive(kept), {place: axes[0] for place, axes in found.items() if axes})

    def build(self, cut: Cut, values: Callable[[Tensor], Tensor] | None = None) -> nn.Module:
        """Return a copy of the model that is cut, of its own values or of others."""
        model = self.subject.model

        def twin(tensor: Tensor) -> Tensor:
            return cut.sliced(tensor, None if values is None else values(tensor))

        with torch.no_grad(), guarded(self.subject):
            made = copy_with(model, twin, {})
        set_attributes(made, cut.attributes(model))
        return made


def named_axes(trace: Trace, decisions: Decisions, place: tuple[str, str]) -> list[Ids]:
    """Return the labels of all axes that a number of a module is the width of."""
    found = []
    for key, given, tensor, axis in sorted(decisions.attributes[place]):
        record = trace.records.get(key)
        if record is not None:
            ids = (record.given if given else record.taken)[tensor][axis]
            if ids is not None:
                found.append(ids)
    return found


def locked_axes(followed: Followed) -> Iterator[tuple[str, int, str]]:
    """List tensors' axes of which positions are locked: name, how many, and why."""
    space, labels = followed.space, followed.trace.labels
    for key, (_, names) in space.tensors.items():
        for axis, ids in enumerate(followed.trace.params[key]):
            if ids is None:
                continue
            roots = labels.tied.find(ids)
            reasons = Counter(space.locked[root] for root in roots[space.unit_of[ids] < 0].tolist())
            for reason, many in reasons.items():
                if reason != "a kernel":
                    yield f"{names[0]}[{axis}]", many, reason
