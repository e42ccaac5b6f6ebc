"""Deep copies that go on where `copy.deepcopy` stops: into functions, bound methods and weak references.

A forward hook that closes over a dictionary of the model gets a dictionary of the copy.
"""

import copy
import weakref
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock, RLock
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch._library.custom_ops import CustomOpDef
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch.nn.utils.rnn import PackedSequence

#: What is shared, since it cannot change.
ATOMS = frozenset(
    {bool, int, float, complex, str, bytes, type(None), type, range, CodeType, torch.dtype, torch.device, torch.Size}
)
#: What cannot be copied, and is free again after each use.
LOCKS = frozenset({type(Lock()), type(RLock())})
#: What a program has one of: no part of a model, though a model may keep it.
SHARED = (type, ModuleType, CustomOpDef, HigherOrderOperator, OpOverload, OpOverloadPacket)
_NAMES = frozenset({str})
_PROXIES = (weakref.ProxyType, weakref.CallableProxyType)

Memo = dict[int, Any]


def deep(item: Any, memo: Memo) -> Any:
    """Copy an object and all that it reaches; `memo` maps ids to copies that are there already.

    Errors: those of the objects' own ways to be copied.
    """
    kind = type(item)
    if kind in ATOMS or kind in LOCKS:
        return item
    found = memo.get(id(item))
    if found is not None:
        return found
    make = _MAKERS.get(kind)
    if make is None:
        make = _share if isinstance(item, SHARED) else _by_protocol
    made = make(item, memo)
    if made is not item:
        memo[id(item)] = made
        # An id is good for as long as its object lives.
        memo.setdefault(id(memo), []).append(item)
    return made


def _share(item: Any, memo: Memo) -> Any:
    return item


def _dict(item: Any, memo: Memo) -> Any:
    made = memo[id(item)] = type(item)()
    if not item:
        return made
    if _NAMES.issuperset(map(type, item)):
        try:  # as in most modules, whose tensors and children are copied already
            made.update(zip(item, map(memo.__getitem__, map(id, item.values())), strict=True))
        except KeyError:
            pass
        else:
            return made
    for key, value in item.items():
        made[deep(key, memo)] = deep(value, memo)
    return made


def _list(item: list[Any], memo: Memo) -> Any:
    made: list[Any] = []
    memo[id(item)] = made
    made.extend(item if ATOMS.issuperset(map(type, item)) else [deep(each, memo) for each in item])
    return made


def _tuple(item: tuple[Any, ...], memo: Memo) -> Any:
    if ATOMS.issuperset(map(type, item)):
        return item
    made = tuple([deep(each, memo) for each in item])
    same = all(old is new for old, new in zip(item, made, strict=True))
    # What it holds may have led back to it.
    return memo.get(id(item), item if same else made)


def _function(item: FunctionType, memo: Memo) -> Any:
    """Copy what a function holds, its closure and its defaults; one that cannot be copied stays as it is."""
    held = (item.__defaults__, item.__kwdefaults__, item.__dict__)
    if not item.__closure__ and not any(held):
        return item
    before = len(memo)
    try:
        cells = tuple(deep(cell, memo) for cell in item.__closure__ or ())
        made = memo.get(id(item))
        if made is None:
            made = memo[id(item)] = FunctionType(item.__code__, item.__globals__, item.__name__, None, cells or None)
        made.__defaults__, made.__kwdefaults__, attributes = (deep(each, memo) for each in held)
        made.__dict__.update(attributes)
        made.__qualname__, made.__module__, made.__doc__ = item.__qualname__, item.__module__, item.__doc__
    except Exception:
        while len(memo) > before:
            memo.popitem()
        return item
    return made


def _cell(item: CellType, memo: Memo) -> Any:
    made = memo[id(item)] = CellType()
    try:
        held = item.cell_contents
    except ValueError:  # nothing in it yet
        return made
    made.cell_contents = deep(held, memo)
    return made


def _method(item: MethodType, memo: Memo) -> Any:
    return MethodType(deep(item.__func__, memo), deep(item.__self__, memo))


def _builtin(item: BuiltinFunctionType, memo: Memo) -> Any:
    """Bind `append` of a list to the copy of that list."""
    owner = item.__self__
    copied = deep(owner, memo) if type(owner) in _MAKERS else owner
    return item if copied is owner else getattr(copied, item.__name__)


def _reference(item: weakref.ref[Any], memo: Memo) -> Any:
    target = item()
    return item if target is None else weakref.ref(deep(target, memo))


def _proxy(item: Any, memo: Memo) -> Any:
    return weakref.proxy(deep(item.__repr__.__self__, memo))


def _generator(item: torch.Generator, memo: Memo) -> Any:
    return torch.Generator(item.device).set_state(item.get_state())


def _packed(item: PackedSequence, memo: Memo) -> Any:
    """Keep the sizes of its steps: PyTorch wants them with values."""
    data, order, back = (deep(each, memo) for each in (item.data, item.sorted_indices, item.unsorted_indices))
    return PackedSequence(data, item.batch_sizes.clone(), order, back)


def _by_protocol(item: Any, memo: Memo) -> Any:
    """Copy an object as it, its class or `copyreg` says."""
    own = getattr(item, "__deepcopy__", None)
    if own is not None:
        return own(memo)
    reducer = copy.dispatch_table.get(type(item))  # type: ignore[attr-defined]
    reduced = reducer(item) if reducer else item.__reduce_ex__(4)
    if isinstance(reduced, str):
        return item
    function, args, state, items, pairs = (*reduced, None, None, None)[:5]
    memo.setdefault(id(memo), []).append(reduced)
    made = function(*[deep(each, memo) for each in args])
    memo[id(item)] = made
    if state is not None:
        _restore(made, deep(state, memo))
    for each in items or ():
        made.append(deep(each, memo))
    for key, value in pairs or ():
        made[deep(key, memo)] = deep(value, memo)
    return made


def _restore(made: Any, state: Any) -> None:
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    if attributes:
        vars(made).update(attributes)
    for name, value in (slots or {}).items():
        setattr(made, name, value)


_MAKERS: dict[type, Callable[[Any, Memo], Any]] = {
    dict: _dict,
    OrderedDict: _dict,
    list: _list,
    tuple: _tuple,
    FunctionType: _function,
    CellType: _cell,
    MethodType: _method,
    BuiltinFunctionType: _builtin,
    weakref.ref: _reference,
    torch.Generator: _generator,
    PackedSequence: _packed,
    **dict.fromkeys(_PROXIES, _proxy),
}
