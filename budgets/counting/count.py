"""The counter: one forward of a copy without memory, every operator answered for.

It sees operators below autograd and below every decomposition, so that `F.conv2d`, `nn.Conv2d`, a subclass of it and
a weight handed to another function all arrive as the same operator.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from featherpress.budgets.counting.attribution import ModuleStack
from featherpress.budgets.counting.costs import ROOT, SUMMED, Cost, ModuleCost, format_shapes, require_sums, sum_by_path
from featherpress.budgets.counting.dispatch import CountingMode, ValueEscapes
from featherpress.budgets.counting.formulas import FORMULAS, Formula
from featherpress.budgets.counting.global_state import preserve_global_state
from featherpress.budgets.counting.inputs import Inputs, describe_inputs
from featherpress.budgets.counting.memory import Footprint, storage_key
from featherpress.budgets.counting.replicas import copy_with, fake_twin, meta_twin, real_twin
from featherpress.budgets.counting.surroundings import Surroundings, untouched
from featherpress.budgets.counting.tensors import TensorRows, list_tensors
from featherpress.budgets.counting.wrappers import unwrap
from featherpress.errors import CountError, UsageError

METHODS = ("meta", "fake", "real")
#: All modules of a model by path, itself first, one that has several paths under each.
Tree = Sequence[tuple[str, nn.Module]]


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
    tree = _tree(model := unwrap(model) if isinstance(model, nn.Module) else model)
    inputs = (example_inputs, dict(kwargs or {}))
    table = {**FORMULAS, **(formulas or {})}
    failure: BaseException | None = None
    depth = max(path.count(".") for path, _ in tree)
    for method in METHODS:
        try:
            with preserve_global_state(depth), untouched(model) as surroundings:
                return _count_by(method, tree, inputs, table, surroundings)
        except (CountError, UsageError):
            raise
        except (Exception, SystemExit) as error:
            failure = error
        held = [*model.parameters(), *model.buffers(), *_tensors_in(inputs)]
        if method == "fake" and any(tensor.is_meta for tensor in held):
            raise UsageError(
                f"{type(model).__name__} reads values ({_first_line(failure)}), and its weights or inputs are on the "
                "meta device, where they have none: build them on the CPU"
            ) from failure
    raise UsageError(
        f"{type(model).__name__} fails on inputs {format_shapes(_shapes(inputs)) or '(none)'}: {_first_line(failure)}"
    ) from failure


def _tree(model: nn.Module) -> Tree:
    """List all modules under all their names."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected a torch.nn.Module to count, got {type(model).__name__}")
    tree = list(model.named_modules(remove_duplicate=False))
    for path, module in tree:
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(
                f"{path or ROOT} of {type(model).__name__} is a scripted or traced module, whose operators are hidden: "
                "count the module that it was made from"
            )
    return tree


def _count_by(method: str, tree: Tree, inputs: Any, table: Mapping[str, Formula], surroundings: Surroundings) -> Cost:
    """Run one step of the ladder; errors of the model's own forward come through as they are."""
    model = tree[0][1]
    fake_mode = FakeTensorMode(allow_non_fake_inputs=True) if method == "fake" else None
    twin = fake_twin(fake_mode) if fake_mode else meta_twin if method == "meta" else real_twin
    memo: dict[int, Any] = {}
    replica = copy_with(model, twin, memo)
    args, kwargs = copy_with(inputs, twin, memo)
    if any(module.training for _, module in tree):
        replica.eval()
    rows = list_tensors(model)
    stack = ModuleStack(replica)
    # A function that the model keeps may hold on to the original, and bring its weights along.
    parameters = {storage_key(tensor): key for key, tensor in rows.by_id.items()}
    parameters |= {storage_key(memo[key]): key for key in rows.by_id}
    mode = CountingMode(table, stack, replica, parameters, method=method)
    mode.protected, mode.made = surroundings.tensors, surroundings.made
    mode.made.extend(ref(memo[key]) for key in rows.by_id)
    mode.lifetimes.take(_tensors_in((args, kwargs)))
    with ExitStack() as contexts:
        contexts.enter_context(torch.no_grad())
        contexts.enter_context(fake_mode or nullcontext())
        if method == "real":
            contexts.enter_context(ValueEscapes(mode))
        contexts.enter_context(mode)
        try:
            results = replica(*args, **kwargs)
        finally:
            # A model may catch exceptions; it cannot hide from us that an operator had no formula, or no answer.
            if refusal := mode.refusal or stack.refusal or mode.failure:
                raise refusal
    mode.lifetimes.keep(_tensors_in(results))
    return _summarise(tree, inputs, method, rows, mode)


def _summarise(tree: Tree, inputs: Any, method: str, rows: TensorRows, mode: CountingMode) -> Cost:
    """Put tensors and work together, and check that the rows sum to the totals."""
    unused = set(rows.by_id) - mode.readers.keys()
    lifetimes = mode.lifetimes
    first_name = {key: names[0] for key, names in rows.names.items()}
    cost = Cost(
        model=type(tree[0][1]).__name__,
        inputs=_shapes(inputs),
        signature=describe_inputs(Inputs(*inputs)),
        method=method,
        params=sum(t.numel() for t in rows.by_id.values()),
        trainable=sum(t.numel() for t in rows.by_id.values() if t.requires_grad),
        frozen=sum(t.numel() for t in rows.by_id.values() if not t.requires_grad),
        unused=sum(rows.by_id[key].numel() for key in unused),
        bytes=rows.size(),
        macs=sum(mode.macs.values()),
        elementwise=sum(mode.elementwise.values()),
        activations=lifetimes.total(),
        peak=lifetimes.peak(),
        weight_footprint=Footprint.of(rows.size),
        activation_footprint=Footprint.of(lifetimes.total),
        peak_footprint=Footprint.of(lifetimes.peak),
        modules=_modules(tree, rows.rows(unused), mode),
        work=dict(mode.macs),
        elementwise_work=dict(mode.elementwise),
        operator_calls=dict(mode.calls),
        readers={first_name[key]: tuple(sorted(names)) for key, names in mode.readers.items()},
        shapes={
            path: (format_shapes(taken), format_shapes(given))
            for path in mode.stack.calls
            for taken, given in [mode.stack.shapes.get(path, ((), ()))]
        },
        unused_names=tuple(first_name[key] for key in rows.by_id if key in unused),
        notes=tuple(_notes(mode)),
    )
    require_sums(cost.modules, cost, SUMMED, what=f"the rows of {cost.model}")
    return cost


def _notes(mode: CountingMode) -> Iterator[str]:
    """State what a reader of the numbers has to know."""
    for name, place in mode.value_dependent.items():
        yield f"{name} in {place} gives a result whose shape depends on values: no core work follows it"
    yield from mode.value_escapes.values()
    if mode.foreign_params:
        yield (
            f"{sum(mode.foreign_params.values()):,} parameters that the forward reads are not the model's and not "
            "counted: they are made there, or kept in a plain list or dictionary, where optimizers and weights files "
            "miss them"
        )


def _modules(tree: Tree, held: Mapping[str, dict[str, Any]], mode: CountingMode) -> tuple[ModuleCost, ...]:
    """Make a row for each module, for each tensor of several owners, and for work outside all modules."""
    macs, elementwise = sum_by_path(mode.macs), sum_by_path(mode.elementwise)
    written, calls = mode.lifetimes.written(), mode.stack.calls
    left = dict(held)
    kinds = {path: type(module).__name__ for path, module in tree}
    # A module with several paths has its row at the first; at another only if work was done there.
    first = {id(module): path for path, module in reversed(tree)}
    order = dict.fromkeys(first[id(module)] for _, module in tree)
    order |= dict.fromkeys([*calls, *macs, *elementwise, *written])
    rows = [
        ModuleCost(
            path=path,
            kind=kinds.get(path, ""),
            macs=macs[path],
            elementwise=elementwise[path],
            activations=written[path],
            calls=calls[path],
            **left.pop(path, {}),
        )
        for path in order
    ]
    return (*rows, *(ModuleCost(path=path, **own) for path, own in left.items()))


def _shapes(inputs: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in _tensors_in(inputs))


def _tensors_in(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
