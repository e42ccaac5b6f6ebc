"""The counter: one forward of a copy without memory, every operator answered for.

It sees operators below autograd and below every decomposition, so that `F.conv2d`, `nn.Conv2d`, a subclass of it and
a weight handed to another function all arrive as the same operator.
"""

import random
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from featherpress.budgets import ledger
from featherpress.budgets.attribution import ModuleStack
from featherpress.budgets.copies import Twin, copy_with, fake_twin, meta_twin, real_twin
from featherpress.budgets.costs import ROOT, UNATTRIBUTED, Cost, ModuleCost
from featherpress.budgets.formulas import FORMULAS, Formula
from featherpress.budgets.tensors import TensorRows, list_tensors
from featherpress.errors import CountError, UsageError

__all__ = ["count"]

METHODS = ("meta", "fake", "real")


def count(
    model: nn.Module,
    *example_inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    formulas: Mapping[str, Formula] | None = None,
) -> Cost:
    """Count a model's parameters, and the multiply-accumulates of one forward in eval mode.

    The model is copied, never touched. The copy runs on meta tensors; where an operator cannot, on fake tensors, and
    at last for real on the CPU. `formulas` adds to the table: {"library::operator": formula(args, result) -> MACs}.

    Errors: CountError for an operator that nothing answers for, or when core work follows an operator whose result's
    shape depends on values; UsageError if the model cannot be copied or fails on these inputs.
    """
    _check_countable(model)
    inputs = (example_inputs, dict(kwargs or {}))
    table = {**FORMULAS, **(formulas or {})}
    failure: Exception | None = None
    for method in METHODS:
        try:
            with bystanders_unharmed():
                return _count_by(method, model, inputs, table)
        except (CountError, UsageError):
            raise
        except Exception as error:
            failure = error
    raise UsageError(
        f"{type(model).__name__} fails on inputs {_describe(_shapes(inputs))}: {_first_line(failure)}"
    ) from failure


def _check_countable(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected a torch.nn.Module to count, got {type(model).__name__}")
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(
                f"{path or ROOT} of {type(model).__name__} is a scripted or traced module, which hides what it runs: "
                "count the module that it was made from"
            )


def _count_by(method: str, model: nn.Module, inputs: Any, table: Mapping[str, Formula]) -> Cost:
    """Run one step of the ladder; errors of the model's own forward come through as they are."""
    fake_mode = FakeTensorMode(allow_non_fake_inputs=True) if method == "fake" else None
    twin = _twin(method, fake_mode)
    memo: dict[int, Any] = {}
    replica = copy_with(model, twin, memo)
    args, kwargs = copy_with(inputs, twin, memo)
    replica.eval()
    rows = list_tensors(model)
    stack = ModuleStack(replica)
    counter = _Counter(table, stack, replica, {memo[key].untyped_storage()._cdata: key for key in rows.by_id})
    with ExitStack() as contexts:
        contexts.enter_context(torch.no_grad())
        contexts.enter_context(fake_mode or nullcontext())
        contexts.enter_context(torch.device("meta") if method == "meta" else nullcontext())
        contexts.enter_context(counter)
        try:
            replica(*args, **kwargs)
        finally:
            # A model may catch exceptions; it cannot hide from us that an operator had no formula.
            if counter.refusal:
                raise counter.refusal
    return _summarise(model, inputs, method, rows, counter)


def _twin(method: str, fake_mode: FakeTensorMode | None) -> Twin:
    if fake_mode is not None:
        return fake_twin(fake_mode)
    return meta_twin if method == "meta" else real_twin


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
    """Adds up what each operator costs, by the module that runs."""

    #: Operators that take functions come to us as they are, to be refused like any other without a formula.
    supports_higher_order_operators = True

    def __init__(
        self, table: Mapping[str, Formula], stack: ModuleStack, model: nn.Module, parameters: Mapping[int, int]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.table = table
        self.stack = stack
        self.model = model
        self.parameters = parameters
        self.macs: Counter[tuple[str, str]] = Counter()
        self.elementwise: Counter[str] = Counter()
        self.readers: defaultdict[int, set[str]] = defaultdict(set)
        self.value_dependent: dict[str, str] = {}
        self.refusal: CountError | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, HigherOrderOperator):
            return self._refuse(f"higher_order::{func}")
        kwargs = kwargs or {}
        name = ledger.operator_name(func)
        formula = self.table.get(name)
        if formula is None and not ledger.is_free(func) and not ledger.is_elementwise(func):
            with self:
                out = func.decompose(*args, **kwargs)
            return self._refuse(name) if out is NotImplemented else out
        self._note_reads(name, [*args, *kwargs.values()])
        out = func(*args, **kwargs)
        if formula is not None:
            self._add_core(name, int(formula(args, out)))
        elif ledger.is_elementwise(func) and not ledger.is_free(func):
            self.elementwise[self._path()] += ledger.elements(args, out)
        if name == "torchvision::deform_conv2d":
            self.elementwise[self._path()] += _sampled(args, out)
        if ledger.changes_shape_with_data(func, args):
            self.value_dependent.setdefault(name, self._place())
        return out

    def _path(self) -> str:
        path = self.stack.path
        return UNATTRIBUTED if path is None else path

    def _place(self) -> str:
        path = self._path()
        kind = type(self.model if path in {"", UNATTRIBUTED} else self.model.get_submodule(path)).__name__
        return f"{path or ROOT} ({kind})"

    def _note_reads(self, name: str, args: Any) -> None:
        for tensor in ledger.tensors_in(args):
            if tensor.layout is torch.strided:
                key = self.parameters.get(tensor.untyped_storage()._cdata)
                if key is not None:
                    self.readers[key].add(name)

    def _add_core(self, name: str, macs: int) -> None:
        if macs and self.value_dependent:
            culprit, place = next(iter(self.value_dependent.items()))
            self.refusal = self.refusal or CountError(
                f"{name} in {self._place()} comes after {culprit} in {place}, whose result's shape depends on values, "
                "so one count would not hold for other inputs: count the part of the model before it"
            )
            raise self.refusal
        self.macs[self._path(), name] += macs

    def _refuse(self, name: str) -> Any:
        remedy = f'pass count(..., formulas={{"{name}": formula}}) or ' if not name.startswith("higher_order::") else ""
        self.refusal = self.refusal or CountError(
            f"no formula for operator {name} in module {self._place()}: expected one that is counted or known to cost "
            f"nothing, {remedy}leave this module out"
        )
        raise self.refusal


def _sampled(args: Sequence[Any], out: Tensor) -> int:
    """Elements a deformable convolution interpolates: one an input channel, tap and output position."""
    image, weight = args[0], args[1]
    return int(out.numel() // weight.shape[0] * image.shape[1] * weight.shape[2] * weight.shape[3])


def _summarise(model: nn.Module, inputs: Any, method: str, rows: TensorRows, counter: _Counter) -> Cost:
    """Put tensors and work together, and check that the rows sum to the totals."""
    unused = set(rows.by_id) - counter.readers.keys()
    macs: Counter[str] = Counter()
    for (path, _), amount in counter.macs.items():
        macs[path] += amount
    table = dict(rows.rows(unused))
    kinds = {path: type(module).__name__ for path, module in model.named_modules(remove_duplicate=False)}
    order = [path for path, _ in model.named_modules()]
    extra = [p for p in {**counter.stack.calls, **macs, **counter.elementwise} if p not in order]
    modules = []
    for path in [*order, *extra]:
        own = table.pop(path, {})
        own |= {"macs": macs[path], "elementwise": counter.elementwise[path]}
        modules.append(ModuleCost(path=path, kind=kinds.get(path, ""), calls=counter.stack.calls[path], **own))
    modules += [ModuleCost(path=path, **own) for path, own in table.items()]
    cost = Cost(
        model=type(model).__name__,
        inputs=_shapes(inputs),
        method=method,
        params=sum(t.numel() for t in rows.by_id.values()),
        trainable=sum(t.numel() for t in rows.by_id.values() if t.requires_grad),
        frozen=sum(t.numel() for t in rows.by_id.values() if not t.requires_grad),
        unused=sum(rows.by_id[key].numel() for key in unused),
        bytes=rows.bytes,
        macs=sum(counter.macs.values()),
        elementwise=sum(counter.elementwise.values()),
        modules=tuple(modules),
        work=dict(counter.macs),
        readers={rows.names[key][0]: tuple(sorted(names)) for key, names in counter.readers.items()},
        unused_names=tuple(rows.names[key][0] for key in rows.by_id if key in unused),
        notes=tuple(
            f"{name} in {place} gives a result whose shape depends on values: no core work follows it"
            for name, place in counter.value_dependent.items()
        ),
    )
    _check_sums(cost)
    return cost


def _check_sums(cost: Cost) -> None:
    for quantity in ("params", "trainable", "frozen", "unused", "bytes", "macs", "elementwise"):
        parts, total = sum(getattr(row, quantity) for row in cost.modules), getattr(cost, quantity)
        if parts != total:
            raise CountError(f"the rows of {cost.model} sum to {parts:,} {quantity}, not {total:,}: this is our bug")


@contextmanager
def bystanders_unharmed() -> Iterator[None]:
    """Put back what a forward can change outside the copy: random states and the switch of attention's fast path."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    numpy = sys.modules.get("numpy")
    states = random.getstate(), numpy.random.get_state() if numpy else None
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), _eager():
            # What a forward has to say about speed or deprecation is for the run that the user starts.
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        random.setstate(states[0])
        if numpy:
            numpy.random.set_state(states[1])


def _eager() -> Any:
    """Run compiled modules as they were written; compiling is loaded only by a program that compiles."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _shapes(inputs: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(leaf.shape) for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))


def _describe(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes) or "(none)"


def _first_line(error: Exception | None) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
