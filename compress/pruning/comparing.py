"""A second trace, operator by operator: whether each gives the channels of the first but for those that were cut."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from featherpress.budgets.counting.meta_kernels import META
from featherpress.compress.pruning.calls import Call
from featherpress.compress.pruning.labels import Axes
from featherpress.compress.pruning.rules import SHAPES_IN_ARGUMENTS
from featherpress.compress.pruning.trace import Record, Trace, describe
from featherpress.compress.pruning.tracing import Tracer


class Comparer:
    """Compares the operators of a cut copy with those of the whole."""

    def __init__(self, tracer: Tracer, whole: Trace) -> None:
        self.tracer, self.whole = tracer, whole
        #: Calls of modules in which something was put right, so that what follows proves nothing.
        self.doubtful: set[tuple[str, int]] = set()

    @property
    def known(self) -> Record | None:
        """What the whole gave at this place."""
        return self.whole.records.get(self.tracer.key)

    def compare(self, call: Call, known: Record | None) -> Any:
        """Note what is wrong of an operator, and return what it should have given."""
        key, trace = self.tracer.key, self.tracer.trace
        found = self.tracer.labels.take_faults()
        if call.failure is not None:
            found.append(describe(call.failure))
        right = known is None or (call.failure is None and self._agrees(call.results, known))
        if not right:
            found = found or ["it gives other channels"]
            self.doubtful.add(key[:2])
        if known and call.scalars != known.scalars and not found and key[:2] not in self.doubtful:
            found = self._changed(known.scalars, call)
        if found:
            trace.faults.setdefault(key, []).extend(found)
        return call.out if right or known is None else self._as_it_should(call.func, known)

    def _expected(self, known: Record) -> Iterator[tuple[Axes, tuple[int, ...]]]:
        """List the labels and the shapes of results without the channels that were cut."""
        for axes, shape in zip(known.given, known.shapes, strict=True):
            kept = tuple(None if ids is None else self.tracer.kept(ids) for ids in axes)
            yield kept, tuple(size if ids is None else len(ids) for size, ids in zip(shape, kept, strict=True))

    def _agrees(self, results: Sequence[Tensor], known: Record) -> bool:
        """Return whether results have the channels of the first trace but for those that were cut."""
        if len(results) != len(known.given):
            return False
        # The statistics that a normalisation also returns are not the model's.
        main = 1 if "norm" in self.tracer.key[2] else None
        tracer, agrees = self.tracer, self.tracer.labels.agrees
        return all(
            tensor.shape == shape and all(map(agrees, tracer.of(tensor), axes))
            for tensor, (axes, shape) in list(zip(results, self._expected(known), strict=True))[:main]
        )

    def _changed(self, before: tuple[float, ...], call: Call) -> list[str]:
        """Tell numbers that follow a width: those of shapes are fine, a factor can be made good, others are faults."""
        key, trace, origins = self.tracer.key, self.tracer.trace, self.tracer.origins
        name, after, args = key[2], call.scalars, call.args
        if name in SHAPES_IN_ARGUMENTS:
            return []
        origin = origins.of(args[0]) if args and isinstance(args[0], Tensor) else None
        one_factor = len(before) == len(after) == 1 and 0.0 not in (*before, *after)
        if origin is not None and one_factor and name in {"aten::mul", "aten::div"}:
            ratio = before[0] / after[0] if name == "aten::mul" else after[0] / before[0]
            trace.scales[key] = (ratio, [origins.rows[row] for row in origin.ravel().tolist()])
            return []
        trace.numbers.setdefault(key, [pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]])
        return ["it computes a number from the count of channels"]

    def _as_it_should(self, func: Any, known: Record) -> Any:
        """Make results as the first trace has them, without the channels that were cut."""
        made = []
        for axes, shape in self._expected(known):
            tensor = torch.empty(shape, device=META)
            self.tracer.give(tensor, axes)
            made.append(tensor)
        returns = func._schema.returns
        if len(returns) == 1 and "[]" not in str(returns[0].type):
            return made[0]
        return made if len(returns) == 1 else tuple(made)
