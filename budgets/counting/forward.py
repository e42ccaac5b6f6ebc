"""One forward of a copy, every operator seen."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch._C import _DisableTorchDispatch

from featherpress.budgets.counting.attribution import Lent, ModuleStack, Unlendable, run_it
from featherpress.budgets.counting.closed import holds_little
from featherpress.budgets.counting.dispatch import CountingMode, see_higher_order
from featherpress.budgets.counting.evidence import Evidence
from featherpress.budgets.counting.formulas import FORMULAS, Formula
from featherpress.budgets.counting.layers import dispatcher_state
from featherpress.budgets.counting.memory import storage_key
from featherpress.budgets.counting.recurrent import closed_form
from featherpress.budgets.counting.replicas import Twin, copy_with, meta_twin, real_twin
from featherpress.budgets.counting.storage import tensors_in
from featherpress.budgets.counting.surroundings import Surroundings
from featherpress.budgets.counting.tensors import TensorRows, Tree, list_modules
from featherpress.budgets.counting.threads import watched
from featherpress.budgets.counting.values import Escapes, Unmade
from featherpress.errors import CountError

#: What may be returned in place of results, with its work still to be done.
_LATER = (Iterator, AsyncIterator, Awaitable, FunctionType, MethodType, partial)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is counted: a model, the arguments of its forward, and the formulas to count by.

    `takes` says that its code names a way to the values of tensors that is no operator.
    """

    tree: Tree
    inputs: tuple[tuple[Any, ...], Mapping[str, Any]]
    table: Mapping[str, Formula]
    takes: bool = False

    @property
    def model(self) -> nn.Module:
        """The model itself."""
        return self.tree[0][1]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of all tensors that it is fed."""
        return tuple(tuple(tensor.shape) for tensor in tensors_in(self.inputs))

    @property
    def name(self) -> str:
        """The model's class."""
        return type(self.model).__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How a run differs from the one that is counted.

    `size` is that of results as large as values say. `change` gets the copy and its inputs. Results at the places in
    `poison` are spoilt.
    """

    size: int | None = None
    change: Callable[[nn.Module, Sequence[Tensor]], None] | None = None
    poison: Collection[int] = ()


AS_IT_IS = Variation()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run saw, and what the copy returned."""

    mode: CountingMode
    results: Sequence[Tensor] = field(repr=False)


def run_forward(
    subject: Subject, method: str, rows: TensorRows, surroundings: Surroundings, variation: Variation = AS_IT_IS
) -> Run:
    """Run a new copy once; errors of the model's own forward come through as they are.

    Errors: CountError for an operator that nothing answers for, UsageError if the model cannot be copied.
    """
    see_higher_order()
    try:
        follow = subject.takes or surroundings.code.takes
        return _run(subject, method, rows, surroundings, variation, follow=follow)
    except Unmade:
        return _run(subject, method, rows, surroundings, variation, follow=True)


def _run(
    subject: Subject, method: str, rows: TensorRows, surroundings: Surroundings, variation: Variation, *, follow: bool
) -> Run:
    """Run a new copy; to follow what makes tensors of numbers slows every call of PyTorch."""
    if surroundings.lent and variation is not AS_IT_IS:
        raise Unlendable
    memo: dict[int, Any] = {id(layer): Lent(layer) for layer in surroundings.lent}
    twin, fake_mode = _twins(method)
    with ExitStack() as contexts:
        replica = copy_with(subject.model, twin, memo, closed=surroundings.closed)
        args, kwargs = copy_with(subject.inputs, twin, memo)
        if not surroundings.lent and any(module.training for _, module in subject.tree):
            replica.eval()
        fed = tensors_in((args, kwargs))
        mode = _watch(subject, method, rows, surroundings, replica=replica, memo=memo)
        stack, mode.size = mode.stack, variation.size
        mode.made.extend(map(ref, fed))
        if variation.change:
            variation.change(replica, fed)
        mode.lifetimes.take(fed)
        known = partial(_known, replica, memo, surroundings)
        if method == "real":
            mode.evidence = Evidence(mode.refuse, known(), variation.poison)
        contexts.enter_context(torch.no_grad())
        contexts.enter_context(fake_mode)
        if method == "meta":
            contexts.enter_context(closed_form(mode))
        if method != "meta" or follow:
            contexts.enter_context(Escapes(mode.note_escape, mode.note_arrival, mode.note_constant))
        contexts.enter_context(watched(mode.note_thread))
        contexts.enter_context(mode)
        if method == "meta" and subject.table == FORMULAS:
            with _DisableTorchDispatch():
                mode.state = dispatcher_state()
            stack.answer = mode.answer
        try:
            returned = replica(*args, **kwargs)
            _require_done(returned, subject.name)
            results = tensors_in(returned)
            if mode.evidence:
                mode.evidence.returns(results)
            elif method == "meta":
                _require_made(results, mode, memo, known)
        finally:
            stack.answer = run_it  # nothing is to hold the copy
            del stack.copy
            # A model may catch exceptions; it cannot hide from us that an operator had no formula, or no answer.
            if refusal := mode.refusal or stack.refusal or mode.failure:
                raise refusal
    mode.lifetimes.keep(results)
    mode.notes += surroundings.generators.notes(memo)
    return Run(mode=mode, results=results)


def _watch(
    subject: Subject,
    method: str,
    rows: TensorRows,
    surroundings: Surroundings,
    *,
    replica: nn.Module,
    memo: dict[int, Any],
) -> CountingMode:
    """Make what sees the operators of a copy, and knows its modules and the parameters that they read.

    Errors: Unlendable where layers are lent, and two tensors share the storage by which they are told apart, one has
    none of its own, or one is an input.
    """
    closed = surroundings.closed
    copies = [(path, memo[id(module)]) for path, module in subject.tree] if closed else list_modules(replica)
    twins = {key: memo[key] for key in rows.by_id if key in memo}
    parameters = {storage_key(tensor): key for key, tensor in twins.items()}
    originals = {storage_key(tensor): key for key, tensor in rows.by_id.items()}
    # A function that the model keeps may hold on to the original, and bring its weights along.
    parameters |= originals
    if closed:
        buffers = [each for _, module in subject.tree for each in module._buffers.values() if each is not None]
        keys = set(map(storage_key, buffers))
        surroundings.tensors.update(originals, keys)
        fed = set(map(id, tensors_in(subject.inputs)))
        if surroundings.lent and (
            len(originals) < len(rows.by_id)
            or not keys.isdisjoint(originals)
            or not (fed.isdisjoint(rows.by_id) and fed.isdisjoint(map(id, buffers)))
            or min(surroundings.tensors, default=0) < 0  # without a storage, as a sparse one
        ):
            raise Unlendable
    mode = CountingMode(subject.table, ModuleStack(copies, closed=closed), replica, parameters, method=method)
    mode.protected, mode.made = surroundings.tensors, surroundings.made
    mode.made.extend(map(ref, twins.values()))
    mode.stack.copy = partial(_copy_late, memo, mode)
    return mode


def _copy_late(memo: dict[int, Any], mode: CountingMode, layer: nn.Module) -> nn.Module:
    """Copy a layer that was lent, and whose call has no answer, or of which more than its call is asked for."""
    if not holds_little((layer,), ()):
        raise Unlendable
    lent = memo.pop(id(layer))
    with _DisableTorchDispatch():
        copied = copy_with(layer, meta_twin, memo, closed=True)
    memo[id(layer)] = lent
    for tensor in (each for each in layer._parameters.values() if each is not None):
        mode.parameters[storage_key(memo[id(tensor)])] = id(tensor)
    return copied


def _require_done(returned: Any, name: str) -> None:
    """Refuse what works only when it is read, awaited or called: none of that was seen."""
    parts = returned if isinstance(returned, (tuple, list)) else (returned,)
    if later := [part for part in parts if isinstance(part, _LATER)]:
        raise CountError(
            f"the forward of {name} returns a {type(later[0]).__name__}, whose work is done after it: count a model "
            "that does it, and returns tensors"
        )


def _known(replica: nn.Module, memo: Mapping[int, Any], surroundings: Surroundings) -> set[int]:
    """List the storages of the copy, its inputs and its surroundings."""
    # To ask for those of layers that are lent would copy them all.
    own = () if surroundings.closed else (*replica.parameters(), *replica.buffers())
    held = (*own, *(each for each in memo.values() if isinstance(each, Tensor)))
    return {*map(storage_key, held), *surroundings.tensors}


def _require_made(
    results: Sequence[Tensor], mode: CountingMode, memo: Mapping[int, Any], known: Callable[[], set[int]]
) -> None:
    """Leave to a real run a result without values that no operator was seen to make, as in another thread."""
    keys = {storage_key(tensor) for tensor in results if tensor.is_meta and tensor.numel()}
    unmade = keys - mode.lifetimes.alive.keys()
    copies = set(map(id, memo.values()))  # most are buffers
    read = {key for key, tensor in mode.unmade.items() if id(tensor) not in copies}
    if not (unmade or read):
        return
    held = known() | mode.constants.keys()
    for verb, found in ("reads", read), ("returns", unmade):
        if found - held:
            raise Unmade(f"the model {verb} a tensor that no operator made: the work on it is not seen")


def _twins(method: str) -> tuple[Twin, AbstractContextManager[object]]:
    """Choose the twins of a step of the ladder, and the mode that goes with fake ones."""
    if method != "fake":
        return meta_twin if method == "meta" else real_twin, nullcontext()
    # It takes seconds to load, and few models need it.
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    return (lambda tensor: mode.from_tensor(tensor.detach())), mode
