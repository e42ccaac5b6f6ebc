"""Models that nothing leads back to from what their forward runs.

Their code is PyTorch's, torchvision's or ours, which writes to no class, no global and no hook while it runs; and they
hold tensors and modules, which a copy has of its own, and what cannot change.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from itertools import chain
from operator import itemgetter
from types import FunctionType
from typing import Any

from torch import nn

from featherpress.budgets.counting.deep_copies import ATOMS
from featherpress.budgets.counting.layers import GLOBAL_HOOKS, LAYERS, hooks_of
from featherpress.budgets.counting.meta_kernels import CLASSES
from featherpress.budgets.counting.replicas import REGISTRIES, TABLES, is_plain

#: Packages to whose classes and globals no model's forward writes; from a test's globals pytest's lead to every test.
FOREIGN = (sys.stdlib_module_names | {"torch", "torchvision", "numpy", "featherpress", "_pytest"}) - {"__main__"}
#: Those that finish setting themselves up when they are first used, and stop working if that is undone.
FOREIGN |= {"numba", "llvmlite"}
_UNCHANGING, _TENSORS = ATOMS - {type}, CLASSES | {type(None)}
#: What runs in a class; and with it all that PyTorch's classes are made of.
_CODE = {FunctionType, staticmethod}
_OF_CLASSES = _UNCHANGING | _CODE | {tuple} | {type(held) for base in nn.Linear.__mro__ for held in vars(base).values()}
_registries_of, _tables_of = itemgetter(*REGISTRIES), itemgetter(*TABLES)
_CONTAINERS = Counter([*REGISTRIES.values(), *(dict for _ in TABLES)])


def is_foreign(kind: type | FunctionType) -> bool:
    """Return whether a class or a function is one that no forward writes to."""
    name: object = kind.__module__  # one may say anything
    return not isinstance(name, str) or name.partition(".")[0] in FOREIGN or name not in sys.modules


def lendable(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """List PyTorch's layers in a model, which may be read where they are and need no copy; none where one trains.

    One with hooks, or whose padding is a word, has no answer and is none of them.
    """
    if any(module.training for module in modules):
        return []
    layers = ((layer, layer.__dict__) for layer in modules[1:] if type(layer) in LAYERS)
    return [layer for layer, own in layers if not any(hooks_of(own)) and type(own.get("padding")) is not str]


def is_closed(modules: Sequence[nn.Module], lent: Sequence[nn.Module]) -> bool:
    """Return whether a model of these modules, which are all, is such a one; those that are lent are not looked at."""
    kinds = set(map(type, modules))
    bases = {base for kind in kinds for base in kind.__mro__}
    own = [held for base in bases for held in vars(base).values()]
    code = [held.__func__ if type(held) is staticmethod else held for held in own if type(held) in _CODE]
    # What wraps another function takes its name, and its module's; where it looks names up is its own.
    names = {each.__module__ for each in chain(bases, code)} | {each.__globals__.get("__name__") for each in code}
    homes = {str(name).partition(".")[0] for name in names}
    if not homes <= FOREIGN or not _OF_CLASSES.issuperset(map(type, own)):
        return False
    return not any(GLOBAL_HOOKS) and all(map(is_plain, kinds)) and holds_little(modules, lent)


def holds_little(modules: Sequence[nn.Module], lent: Sequence[nn.Module]) -> bool:
    """Return whether modules have no hooks, and hold one another, tensors and what cannot change, those lent aside."""
    known = {id(None), *map(id, modules)}
    left = known.difference(map(id, lent))
    held = [module.__dict__ for module in modules if id(module) in left]
    values = list(chain.from_iterable(map(dict.values, held)))
    found = Counter(map(type, values))
    if any(found.pop(kind, 0) != number * len(held) for kind, number in _CONTAINERS.items()):
        return False
    tuples = [value for value in values if type(value) is tuple] if found.pop(tuple, 0) else ()
    if not found.keys() | set(map(type, chain.from_iterable(tuples))) <= _UNCHANGING:
        usual = _UNCHANGING | _CONTAINERS.keys()
        if not all(_cannot_change(value) for value in values if type(value) not in usual):
            return False
    try:
        hooks = any(chain.from_iterable(map(_registries_of, held)))
        tables = list(map(_tables_of, held))
    except KeyError:
        return False
    tensors = chain.from_iterable([*parameters.values(), *buffers.values()] for parameters, buffers, _ in tables)
    children = chain.from_iterable(each.values() for _, _, each in tables)
    return not hooks and set(map(type, tensors)) <= _TENSORS and known.issuperset(map(id, children))


def _cannot_change(value: Any) -> bool:
    """Return whether it is a number, a name or a class that no forward writes to, or a tuple or frozen data of such."""
    kind = type(value)
    if kind in _UNCHANGING or isinstance(value, type):
        return kind in _UNCHANGING or is_foreign(value)
    if kind is tuple:
        return all(map(_cannot_change, value))
    if not is_dataclass(value) or not kind.__dataclass_params__.frozen or not is_foreign(kind):
        return False
    parts = (getattr(value, each.name) for each in fields(value))
    return all(_cannot_change(tuple(part.values()) if type(part) is dict else part) for part in parts)
