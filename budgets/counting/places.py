"""Whether code may go another way on meta tensors: it asks for their device, or for values that they do not have."""

import dis
from collections import ChainMap
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from torch import nn

from featherpress.budgets.counting.values import UNSEEN

#: Attributes of tensors, and names of devices, that differ between meta and the CPU.
_ASKED = frozenset({"is_cpu", "is_meta"})
_NAMES = frozenset({"cpu", "meta"})
#: Whose layers do the same work on every device.
_SETTLED = frozenset({"torch", "featherpress"})
#: A comparison has them, and what is compared, within so many instructions: `x.device == torch.device("cpu")`.
_STEPS = 10
#: What lies between the name of a device and a variable that is set to it: `here = torch.device("cpu")`.
_CALLS = frozenset({"PRECALL", "CALL"})
_COMPARES = frozenset({"COMPARE_OP", "CONTAINS_OP"})
_LOADS = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_NAMED = _LOADS | {"LOAD_GLOBAL", "LOAD_DEREF"}
_COMPARED = frozenset({"device", "type"})


class Code(NamedTuple):
    """Whether code asks which device tensors are on, and whether it names a way to their values that is no operator."""

    asks: bool = False
    takes: bool = False


def look(modules: Iterable[nn.Module]) -> Code:
    """Look at the code that the forwards of modules reach by name."""
    found = list(map(_of_class, set(map(type, modules))))
    return Code(any(code.asks for code in found), any(code.takes for code in found))


def look_at(functions: Iterable[FunctionType]) -> Code:
    """Look at functions that a model holds, and at what they reach by name."""
    return _look([(function, type(None)) for function in functions])


@cache
def _of_class(kind: type[nn.Module]) -> Code:
    return _look([(kind.forward, kind), (kind.__call__, kind)])


def _look(left: list[tuple[Any, type]]) -> Code:
    seen: set[int] = set()
    asks, takes = False, False
    while left:
        function, kind = left.pop()
        function = function.__func__ if isinstance(function, MethodType) else function
        if not isinstance(function, FunctionType) or id(function) in seen or _is_settled(function):
            continue
        seen.add(id(function))
        names = _names(function.__code__)
        takes = takes or not UNSEEN.isdisjoint(names)
        asks = asks or not _ASKED.isdisjoint(names)
        if not (asks or _devices(kind).isdisjoint(names)):
            asks = _compares(function.__code__, _Known(function, kind))
        left += [(each, kind) for each in _reached(function, kind)]
    return Code(asks, takes)


def _reached(function: FunctionType, kind: type) -> Iterator[Any]:
    """List what a function may call: globals, methods and properties that it names, and what it is wrapped around."""
    for name in _names(function.__code__):
        yield function.__globals__.get(name)
        yield _behind(getattr(kind, name, None))
    yield from _cells(function).values()


def _is_property(held: Any) -> bool:
    return isinstance(held, (property, cached_property))


def _behind(held: Any) -> Any:
    return held.fget if isinstance(held, property) else held.func if isinstance(held, cached_property) else held


def _cells(function: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # nothing in it yet
            continue
    return found


def _is_settled(function: FunctionType) -> bool:
    return str(function.__module__).partition(".")[0] in _SETTLED


@cache
def _names(code: CodeType) -> frozenset[str]:
    inner = [_names(each) for each in code.co_consts if isinstance(each, CodeType)]
    return frozenset(code.co_names).union(*inner)


@cache
def _devices(kind: type) -> frozenset[str]:
    """Name what tells a device: attributes of tensors, and properties of a class that name one."""
    held = ((name, _behind(own)) for base in kind.__mro__ for name, own in vars(base).items() if _is_property(own))
    code = ((name, getattr(behind, "__code__", None)) for name, behind in held)
    return _COMPARED.union(name for name, own in code if isinstance(own, CodeType) and "device" in _names(own))


class _Known:
    """What names in a function's code stand for: the CPU or meta (`answers`), or a device (`asks`)."""

    def __init__(self, function: FunctionType, kind: type) -> None:
        own = ChainMap(*[dict(vars(base)) for base in kind.__mro__])
        names = (*_names(function.__code__), *function.__code__.co_freevars)
        held = (function.__globals__, _cells(function), own)
        self.answers = {name for name in names if any(_is_name(each.get(name)) for each in held)}
        self.asks = _devices(kind)


def _compares(code: CodeType, known: _Known) -> bool:
    """Return whether code, or code inside it, compares a device with the CPU or meta."""
    if any(isinstance(each, CodeType) and _compares(each, known) for each in code.co_consts):
        return True
    if known.asks.isdisjoint(code.co_names):
        return False
    named = not known.answers.isdisjoint((*code.co_names, *code.co_freevars))
    if not (named or "type" in code.co_names or any(map(_is_name, code.co_consts))):
        return False
    steps = list(dis.get_instructions(code))
    answers = [_answers(step, known) for step in steps]
    devices: set[str] = set()
    places: set[str] = set()
    for number, step in enumerate(steps):  # variables, in the order of the code
        answers[number] = answers[number] or _has(step, places)
        if step.opname.startswith("STORE_FAST"):
            before, name = number - 1, _variables(step)[0]
            if _asks(steps[before], known, devices):
                devices.add(name)
            while steps[before].opname in _CALLS:
                before -= 1
            if answers[before]:
                places.add(name)
    for number, step in enumerate(steps):
        if step.opname == "BINARY_SUBSCR" and _asks(steps[number - 1], known, devices):
            return True
        begins = step.opname in _LOADS and step.argval == "startswith"
        if begins or step.opname in _COMPARES:
            near = range(max(number - _STEPS, 0), min(number + 1 + begins, len(steps)))
            if any(answers[each] for each in near) and any(_asks(steps[each], known, devices) for each in near):
                return True
    return False


def _answers(step: dis.Instruction, known: _Known) -> bool:
    """Return whether an instruction loads the CPU, or meta."""
    if step.opname == "LOAD_CONST":
        return _is_name(step.argval)
    return step.opname in _NAMED and step.argval in known.answers


def _asks(step: dis.Instruction, known: _Known, devices: set[str]) -> bool:
    """Return whether an instruction loads a device."""
    return (step.opname in _LOADS and step.argval in known.asks) or _has(step, devices)


def _has(step: dis.Instruction, variables: set[str]) -> bool:
    """Return whether an instruction loads one of these variables."""
    if step.opname.startswith("LOAD_FAST"):
        return not variables.isdisjoint(_variables(step))
    return step.opname == "STORE_FAST_LOAD_FAST" and step.argval[1] in variables


def _variables(step: dis.Instruction) -> tuple[str, ...]:
    return step.argval if isinstance(step.argval, tuple) else (step.argval,)


def _is_name(value: Any) -> bool:
    if isinstance(value, torch.device):
        return value.type in _NAMES
    if isinstance(value, str):
        return value in _NAMES
    return isinstance(value, (tuple, frozenset)) and any(isinstance(each, str) and each in _NAMES for each in value)
