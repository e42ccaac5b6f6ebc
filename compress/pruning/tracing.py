"""One forward of a copy without memory: every operator's rule says what becomes of the labels."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from featherpress.budgets.counting.attribution import ModuleStack
from featherpress.budgets.counting.formulas import FORMULAS
from featherpress.budgets.counting.global_state import preserve_global_state
from featherpress.budgets.counting.meta_kernels import META, META_KERNELS
from featherpress.budgets.counting.operators import Facts, facts_of
from featherpress.budgets.counting.replicas import copy_with, meta_twin
from featherpress.budgets.counting.surroundings import untouched
from featherpress.budgets.counting.tensors import tensors_in
from featherpress.compress.pruning.labels import Axes, Ids, Labels, describe
from featherpress.compress.pruning.origins import Origins

#: Operators that change a shape.
VIEWING = frozenset({"aten::view", "aten::_unsafe_view", "aten::reshape", "aten::_reshape_alias"})
#: Where an operator ran: the module's path, its call, the operator, and which of these in that call.
Key = tuple[str, int, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model and the arguments of its forward."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(slots=True)
class Record:
    """What the first trace saw of an operator."""

    taken: list[Axes]
    given: list[Axes]
    shapes: list[tuple[int, ...]]
    scalars: tuple[float, ...]


@dataclass(slots=True)
class Work:
    """Multiply-accumulates of one operator: its factors are axes that can shrink."""

    path: str
    macs: int
    factors: list[Ids]


@dataclass(slots=True)
class Decisions:
    """What is chosen of several ways, by the place: which axis of a view stays free, how groups are cut.

    `refused` are choices that a second trace found wrong.
    """

    chosen: dict[tuple[Key, int], Any] = field(default_factory=dict)
    refused: dict[Key, set[Any]] = field(default_factory=dict)
    #: Operators whose channels stay, with the reason.
    locked: dict[Key, str] = field(default_factory=dict)
    #: Numbers that modules keep, by path and name, and the axes of operators' tensors that each is the width of.
    attributes: dict[tuple[str, str], set[tuple[Key, bool, int, int]]] = field(default_factory=dict)
    #: Views whose width is computed from that of the layer before them, and modules all of whose views are such.
    widths: set[Key] = field(default_factory=set)
    attention: set[str] = field(default_factory=set)
    #: How many ways to mend an operator were tried.
    tried: dict[Key, int] = field(default_factory=dict)
    #: Axes of tensors, by id, that stay, with the reason.
    still: dict[tuple[int, int], str] = field(default_factory=dict)
    spread: dict[Key, int] = field(default_factory=dict)


@dataclass(slots=True)
class Trace:
    """What a forward said: labels of every parameter's axes, and the work."""

    labels: Labels
    #: By id of the original's tensor.
    params: dict[int, Axes] = field(default_factory=dict)
    records: dict[Key, Record] = field(default_factory=dict)
    work: list[Work] = field(default_factory=list)
    #: Faults of a second trace, by the place.
    faults: dict[Key, list[str]] = field(default_factory=dict)
    #: Numbers that have changed in a second trace and cannot be made good: before and after.
    numbers: dict[Key, list[tuple[float, float]]] = field(default_factory=dict)
    #: Why a second trace could not go on, after the last operator.
    failure: tuple[Key, str] | None = None
    #: Factors by which numbers in the code have changed, with the rows that they multiply.
    scales: dict[Key, tuple[float, list[tuple[tuple[int, ...], int]]]] = field(default_factory=dict)
    #: Of a grouped convolution's or normalisation's weight, by id: how its groups are cut.
    groups: dict[int, str] = field(default_factory=dict)
    read: set[int] = field(default_factory=set)
    #: Whether the model was followed in training as well, where more of it runs.
    trained: bool = False
    #: Ids of the parameters among the tensors, and of running variances.
    parameters: set[int] = field(default_factory=set)
    variances: set[int] = field(default_factory=set)
    #: Axes of activations.
    arrays: list[Ids] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Call:
    """An operator at work."""

    func: Any
    args: Any
    kwargs: Any
    tensors: list[Tensor]
    out: Any = None
    failure: Exception | None = None

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        """The operator and its arguments."""
        return self.func, self.args, self.kwargs

    @property
    def results(self) -> list[Tensor]:
        """All tensors that it returned."""
        return [each for each in _flat(self.out) if isinstance(each, Tensor)]

    @property
    def scalars(self) -> tuple[float, ...]:
        """All numbers that it was given."""
        return tuple(float(each) for each in _flat((self.args, self.kwargs)) if isinstance(each, int | float))


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
    """Follows labels through the operators of a copy.

    With a `reference`, the trace of the whole model, it compares, and goes on with what should have come out.
    """

    supports_higher_order_operators = True

    def __init__(self, trace: Trace, stack: ModuleStack, decisions: Decisions, reference: Trace | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace, self.stack, self.decisions, self.reference = trace, stack, decisions, reference
        self.labels = trace.labels
        self.axes: dict[int, Axes] = {}
        self.originals: dict[int, int] = {}
        self.weights: dict[int, int] = {}
        self.origins = Origins()
        self.held: list[Tensor] = []
        #: Calls of modules in which something was put right, so that what follows proves nothing.
        self.doubtful: set[tuple[str, int]] = set()
        self.counts: Counter[tuple[str, int, str]] = Counter()
        self.training = False
        self.key: Key = ("", 0, "", 0)
        self.sizes: Callable[[Ids], int] = len
        self.kept: Callable[[Ids], Ids] = lambda ids: ids
        #: Of a run with values: what is computed by an operator on channels that are kept.
        self.compute: Callable[..., Any] | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def of(self, tensor: Tensor) -> Axes:
        """Return the labels of a tensor's axes."""
        found = self.axes.get(id(tensor))
        return found if found is not None else (None,) * tensor.dim()

    def hold(self, tensor: Tensor) -> None:
        """Keep a tensor, so that no other gets its id; one with values only for as long as others do."""
        if self.compute is None:
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
        left = made if self.compute else self.kept(made)
        if len(left) != many:
            self.labels.note_fault("repeats something more often than there are channels")
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

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from featherpress.compress.pruning.rules import RULES, follow_unknown  # noqa: PLC0415  # rules know the tracer

        kwargs = kwargs or {}
        facts = facts_of(func)
        name = facts.name
        rule = RULES.get(name)
        known = rule or facts.free or facts.elementwise or name in FORMULAS
        if not known and isinstance(func, OpOverload):
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        if self.compute is None:
            if facts.makes:
                kwargs = {**kwargs, "device": META}
            args, kwargs = _on_meta(args, kwargs)
        tensors = [each for each in _flat((args, kwargs)) if isinstance(each, Tensor)]
        self.trace.read.update(self.originals[id(each)] for each in tensors if id(each) in self.originals)
        turn = self.stack.calls[self.stack.path]
        call = (self.stack.path, -turn if self.training else turn, name)
        self.key = (*call, self.counts[call])
        self.counts[call] += 1
        return self._run(Call(func=func, args=args, kwargs=kwargs, tensors=tensors), facts, rule or follow_unknown)

    def _run(self, call: "Call", facts: Facts, rule: Any) -> Any:
        """Run an operator and its rule; in a second trace, put right what comes out wrong, and note the fault."""
        key, labels = self.key, self.labels
        known = self.reference.records.get(key) if self.reference else None
        taken = [self.of(each) for each in call.tensors]
        try:
            call.out = self.compute(self, *call.parts) if self.compute else _answer(facts.name, call)
        except Exception as error:
            if known is None or not labels.checks or self.compute:
                raise
            call.failure = error
        if call.failure is None:
            for each in call.results:
                self.hold(each)
            self._apply(rule, call)
            if facts.name in FORMULAS and not (labels.checks or self.training):
                self._note_work(facts.name, call.args, call.out)
        if self.compute:
            labels.take_faults()
            return call.out
        if labels.checks:
            return self._compared(call, known)
        if key in self.decisions.widths or (key[0] in self.decisions.attention and key[2] in VIEWING):
            self._tie_width(call.out)
        given = [self.of(each) for each in call.results]
        if key in self.decisions.locked:
            for tensor in (*call.tensors, *call.results):
                self.lock(tensor, self.decisions.locked[key])
        self.trace.records[key] = Record(taken, given, [tuple(each.shape) for each in call.results], call.scalars)
        self.trace.arrays.extend(ids for axes in given for ids in axes if ids is not None)
        return call.out

    def _tie_width(self, out: Tensor) -> None:
        """Tie what a view gives to what the layer before it takes, column by column: one is computed from the other."""
        for ids in (each for each in self.of(out) if each is not None):
            own = self.labels.tied.find(ids)
            for key in reversed(self.trace.records):
                if not is_inside(key[0], self.key[0]):
                    continue
                before = self._wider(self.trace.records[key], ids, own)
                if before is not None:
                    self.labels.tie_rows(np.concatenate([ids[None], before.reshape(-1, len(ids))]).T)
                    break

    def _wider(self, record: Record, ids: Ids, own: Ids) -> Ids | None:
        """Return an axis that goes into an operator, is as wide or so many times, and not yet tied."""
        for axes in record.taken:
            for each in axes:
                if each is None or len(each) % len(ids):
                    continue
                if not np.isin(self.labels.tied.find(each), own).any():
                    return each
        return None

    def _apply(self, rule: Any, call: "Call") -> None:
        """Let a rule follow an operator; one that fails locks what goes in."""
        from featherpress.compress.pruning.rules import unknown  # noqa: PLC0415

        try:
            rule(self, *call.parts, call.out)
        except Exception as error:
            if self.labels.checks:
                self.labels.note_fault(describe(error))
            else:
                unknown(self, *call.parts, call.out)

    def _compared(self, call: "Call", known: Record | None) -> Any:
        """Note what is wrong of an operator, and return what it should have given."""
        found = self.labels.take_faults()
        if call.failure is not None:
            found.append(describe(call.failure))
        if known is None:
            if found:
                self.trace.faults.setdefault(self.key, []).extend(found)
            return call.out
        right = call.failure is None and self._agrees(call.results, known)
        if not right and not found:
            found.append("gives other channels than in the original")
        if not right:
            self.doubtful.add(self.key[:2])
        if call.scalars != known.scalars and not found and self.key[:2] not in self.doubtful:
            found += self._changed(known.scalars, call)
        if found:
            self.trace.faults.setdefault(self.key, []).extend(found)
        return call.out if right else self._as_it_should(call.func, known)

    def _agrees(self, results: Sequence[Tensor], known: Record) -> bool:
        """Return whether results have the channels of the first trace but for those that were cut."""
        if len(results) != len(known.given):
            return False
        # The statistics that a normalisation also returns are not the model's.
        main = 1 if "norm" in self.key[2] else None
        for tensor, axes, shape in list(zip(results, known.given, known.shapes, strict=True))[:main]:
            wanted = tuple(None if ids is None else self.kept(ids) for ids in axes)
            sizes = tuple(size if ids is None else len(ids) for size, ids in zip(shape, wanted, strict=True))
            if tuple(tensor.shape) != sizes:
                return False
            if not all(self.labels.agrees(*pair) for pair in zip(self.of(tensor), wanted, strict=True)):
                return False
        return True

    def _changed(self, before: tuple[float, ...], call: "Call") -> list[str]:
        """Tell numbers that follow a width: those of shapes are fine, a factor can be made good, others are faults."""
        from featherpress.compress.pruning.rules import SHAPES_IN_ARGUMENTS  # noqa: PLC0415

        name, after, args = self.key[2], call.scalars, call.args
        if name in SHAPES_IN_ARGUMENTS:
            return []
        origin = self.origins.of(args[0]) if args and isinstance(args[0], Tensor) else None
        if name in {"aten::mul", "aten::div"} and len(before) == len(after) == 1 and 0.0 not in (*before, *after):
            ratio = before[0] / after[0] if name == "aten::mul" else after[0] / before[0]
            if origin is not None:
                self.trace.scales[self.key] = (ratio, [self.origins.rows[row] for row in origin.ravel().tolist()])
                return []
        self.trace.numbers.setdefault(
            self.key, [pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]]
        )
        return ["computes a number from the count of channels"]

    def _as_it_should(self, func: Any, known: Record) -> Any:
        """Make results as the first trace has them, without the channels that were cut."""
        made = []
        for axes, shape in zip(known.given, known.shapes, strict=True):
            kept = tuple(None if ids is None else self.kept(ids) for ids in axes)
            sizes = [size if ids is None else len(ids) for size, ids in zip(shape, kept, strict=True)]
            tensor = torch.empty(sizes, device=META)
            self.hold(tensor)
            self.give(tensor, kept)
            made.append(tensor)
        returns = func._schema.returns
        if len(returns) == 1 and "[]" not in str(returns[0].type):
            return made[0]
        return made if len(returns) == 1 else tuple(made)

    def _note_work(self, name: str, args: Any, out: Any) -> None:
        """Write down the factors of an operator that multiplies and accumulates."""
        macs = FORMULAS[name](args, out)
        tensors = [each for each in args if isinstance(each, Tensor)]
        match name.partition("::")[2]:
            case "convolution" | "deform_conv2d":
                axes = self.of(args[1])
            case "mm" | "bmm" | "mv":
                axes = (*self.of(args[0]), *self.of(args[1])[-1:])
                axes = axes if name != "aten::mv" else self.of(args[0])
            case "addmm" | "baddbmm":
                axes = (*self.of(args[1]), *self.of(args[2])[-1:])
            case _:
                for tensor in tensors:
                    self.lock(tensor, f"goes into {name}, whose cost is not followed")
                axes = ()
        self.trace.work.append(Work(self.stack.path, macs, [ids for ids in axes if ids is not None]))


def is_inside(path: str, root: str) -> bool:
    """Return whether a module is another, or in it."""
    return not root or path == root or path.startswith(f"{root}.")


def _answer(name: str, call: Call) -> Any:
    """Run an operator without memory."""
    kernel = META_KERNELS.get(call.func) or META_KERNELS.get(name)
    out = kernel(call.args, call.kwargs) if kernel else None
    return call.func(*call.args, **call.kwargs) if out is None else out


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        yield value
        return
    for each in value:
        yield from _flat(each)


def _on_meta(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Follow constants that have values, and are no part of the model, without them."""
    kinds = {each.is_meta for each in _flat((args, kwargs)) if isinstance(each, Tensor) and each.dim()}
    if kinds == {True, False}:
        args, kwargs = tree_map_only(Tensor, lambda t: t if t.is_meta or not t.dim() else meta_twin(t), (args, kwargs))
    return args, kwargs


@contextmanager
def guarded(subject: Subject) -> Iterator[None]:
    """Leave the model, and all that stands around it, as it was."""
    modules = list(subject.model.modules())
    depth = max(path.count(".") for path, _ in subject.model.named_modules())
    with preserve_global_state(depth), untouched(subject.model, modules):
        yield


Cut = Callable[[Tensor], Tensor]


def run_traced(
    subject: Subject,
    trace: Trace,
    decisions: Decisions,
    *,
    axes: Mapping[int, Axes],
    reference: Trace | None = None,
    twin: Cut = meta_twin,
    change: Callable[[nn.Module], None] | None = None,
    prepare: Callable[[Tracer], None] | None = None,
    training: bool = False,
) -> list[Tensor]:
    """Run a copy whose tensors are made by `twin`; `axes` are the labels of its parameters and buffers.

    `training` follows what a model does in training, after what it does in eval mode.

    Errors: UsageError if it cannot be copied; those of the forward.
    """
    memo: dict[int, Any] = {}
    replica = copy_with(subject.model, twin, memo)
    replica.train(training)
    inner = meta_twin if twin is meta_twin or prepare is None else twin
    args, kwargs = copy_with((subject.args, dict(subject.kwargs)), inner, memo)
    if change:
        change(replica)
    stack = ModuleStack(replica)
    tracer = Tracer(trace, stack, decisions, reference)
    tracer.training = training
    for key, labels in axes.items():
        copied = memo[key]
        tracer.originals[id(copied)] = key
        tracer.give(copied, labels)
    if prepare:
        prepare(tracer)
    with ExitStack() as contexts:
        contexts.enter_context(torch.no_grad())
        contexts.enter_context(sdpa_kernel(SDPBackend.MATH))
        contexts.enter_context(tracer)
        try:
            results = tensors_in(replica(*args, **kwargs))
        except Exception as error:
            trace.failure = (tracer.key, describe(error))
            raise
    for tensor in results:
        tracer.key = ("", 0, "output", 0)
        tracer.lock(tensor, "part of the output")
    if faults := trace.labels.take_faults():
        trace.faults.setdefault(tracer.key, []).extend(faults)
    return results
