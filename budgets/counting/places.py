"""Whether a forward asks on which device a tensor is: on meta it would go another way than on the CPU."""

import dis
from collections.abc import Iterable, Iterator
from functools import cache
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn

#: Attributes of tensors, and names of devices, that differ between meta and the CPU.
_ASKED = frozenset({"is_cpu", "is_meta"})
_NAMES = frozenset({"cpu", "meta"})
#: Whose layers do the same work on every device.
_SETTLED = frozenset({"torch", "featherpress"})
#: A comparison has them, and what is compared, within so many instructions: `x.device == torch.device("cpu")`.
_STEPS = 7
_COMPARES = frozenset({"COMPARE_OP", "CONTAINS_OP"})
_LOADS = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_COMPARED = frozenset({"device", "type"})


def asks_where(modules: Iterable[nn.Module]) -> bool:
    """Return whether the code that their forwards reach by name compares a device with the CPU or with meta."""
    return any(map(_asks, set(map(type, modules))))


@cache
def _asks(kind: type[nn.Module]) -> bool:
    seen: set[int] = set()
    left: list[tuple[Any, type]] = [(kind.forward, kind), (kind.__call__, kind)]
    while left:
        function, kind = left.pop()
        function = function.__func__ if isinstance(function, MethodType) else function
        if not isinstance(function, FunctionType) or id(function) in seen or _is_settled(function):
            continue
        seen.add(id(function))
        if _compares(function.__code__):
            return True
        left += [(each, kind) for each in _reached(function, kind)]
    return False


def _reached(function: FunctionType, kind: type) -> Iterator[Any]:
    """List what a function may call: globals and methods that it names, and what it is wrapped around."""
    for name in _names(function.__code__):
        yield function.__globals__.get(name)
        yield getattr(kind, name, None)
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # nothing in it yet
            continue


def _is_settled(function: FunctionType) -> bool:
    return str(function.__module__).partition(".")[0] in _SETTLED


@cache
def _names(code: CodeType) -> frozenset[str]:
    inner = [_names(each) for each in code.co_consts if isinstance(each, CodeType)]
    return frozenset(code.co_names).union(*inner)


@cache
def _compares(code: CodeType) -> bool:
    """Return whether code, or code inside it, asks for such an attribute or compares with such a name."""
    if not _ASKED.isdisjoint(code.co_names):
        return True
    if any(isinstance(each, CodeType) and _compares(each) for each in code.co_consts):
        return True
    if not any(map(_is_name, code.co_consts)):
        return False
    steps = list(dis.get_instructions(code))
    for place, step in enumerate(steps):
        after = steps[place + 1 : place + 1 + _STEPS]
        if step.opname == "LOAD_CONST" and _is_name(step.argval) and any(each.opname in _COMPARES for each in after):
            around = (*steps[max(place - _STEPS, 0) : place], *after)
            if any(each.opname in _LOADS and each.argval in _COMPARED for each in around):
                return True
    return False


def _is_name(value: Any) -> bool:
    return (
        value in _NAMES
        if isinstance(value, str)
        else isinstance(value, (tuple, frozenset)) and not _NAMES.isdisjoint(value)
    )
