"""What a model reaches that is no part of its copy: the original, classes, globals, defaults and caches.

A forward that writes there would leave tensors without values behind. All of it is noted before, and put back after.
"""

import gc
import sys
import traceback
from argparse import Namespace
from array import array
from collections import ChainMap, UserDict, UserList, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import _lru_cache_wrapper, cached_property, partial
from itertools import chain, filterfalse
from queue import LifoQueue, PriorityQueue, Queue
from threading import local
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, SimpleNamespace
from typing import Any
from weakref import ref

import torch
from torch import Tensor, _tensor_str, nn
from torch.nested._internal import nested_tensor
from torch.nn.parameter import is_lazy

from featherpress.budgets.counting.closed import is_closed, is_foreign, lendable
from featherpress.budgets.counting.costs import format_shapes
from featherpress.budgets.counting.generators import Generators, ways_of
from featherpress.budgets.counting.layers import GLOBAL_HOOKS
from featherpress.budgets.counting.memory import storage_key
from featherpress.budgets.counting.meta_kernels import CLASSES
from featherpress.budgets.counting.places import Code, look_at
from featherpress.budgets.counting.snapshots import DICTS, LISTS, Snapshot
from featherpress.errors import CountError

#: Objects of the standard library that hold what a program says.
_NAMESPACES = frozenset(
    {SimpleNamespace, Namespace, ChainMap, UserDict, UserList, Queue, LifoQueue, PriorityQueue, local}
)
_CONSTANT = frozenset(
    {bool, int, float, complex, str, bytes, type(None), range, BuiltinFunctionType, torch.dtype, torch.device}
)
#: What PyTorch makes with the first jagged tensor of a program, and keeps.
_JAGGED = "_dummy_instance"
_CONTAINERS = DICTS | LISTS
_AROUND = frozenset({type, _lru_cache_wrapper})


class Surroundings:
    """Notes what a model reaches; `put_back` undoes what has changed since.

    `tensors` are the storages that are reached: no operator may write to them.
    """

    def __init__(self, modules: Sequence[nn.Module], generators: Generators, *, trusting: bool = False) -> None:
        self.generators = generators
        self.tensors: set[int] = set()
        #: All tensors of the count, none of which is to outlive it.
        self.made: list[ref[Tensor]] = []
        #: By id, and so held alive for as long as the id is to be good.
        self._seen: dict[int, Any] = {}
        #: Classes of modules that were met.
        self._modules: set[type] = set()
        #: Classes, caches and globals: no part of the model, though it may lead to them.
        self._around: dict[int, Any] | None = {}
        #: What the model holds and may call, besides its modules.
        self._functions: list[FunctionType] = []
        lent = lendable(modules) if trusting else []
        #: Whether nothing leads to the model itself, of which there is nothing to note then; and its layers that may be
        #: read where they are.
        self.closed = trusting and is_closed(modules, lent)
        self.lent = lent if self.closed else []
        self._own = self._note(() if self.closed else tuple(modules))
        around, self._around = self._around.values(), None
        kinds = {kind for each in around if isinstance(each, type) for kind in each.__mro__ if not is_foreign(kind)}
        helpers = (kind for kind in kinds if not issubclass(kind, nn.Module))
        self._functions += (held for kind in helpers for held in vars(kind).values() if type(held) is FunctionType)
        switches = (*GLOBAL_HOOKS, vars(_tensor_str.PRINT_OPTS))
        self._others = self._note((*kinds, *around, *switches, *(vars(sys.modules[kind.__module__]) for kind in kinds)))
        self._others.undo.append(_forget_jagged(vars(nested_tensor).get(_JAGGED)))

    @cached_property
    def code(self) -> Code:
        """What the functions that the model holds, and those of its objects, say about going another way."""
        return look_at(self._functions)

    def put_back(self) -> bool:
        """Undo all changes; return whether the model itself, beside its copy, had changed."""
        changed = self._own.put_back()
        self._others.put_back()
        return changed

    def left_behind(self) -> list[Tensor]:
        """List tensors of the count that something still holds; finding that out may take a collection."""
        alive = [tensor for made in self.made if (tensor := made()) is not None]
        if alive:
            del alive
            gc.collect()
            alive = [tensor for made in self.made if (tensor := made()) is not None]
        return alive

    def _note(self, items: tuple[Any, ...]) -> Snapshot:
        """Go through items and all that they lead to."""
        noted, seen = Snapshot(), self._seen
        level: list[Any] = list(items)
        while level:
            led: list[Iterable[Any]] = []
            for item in level:
                if id(item) not in seen:
                    seen[id(item)] = item
                    led.append(self._visit(item, noted))
            level = self._sift(list(chain.from_iterable(led)), noted)
        noted.close()
        return noted

    def _sift(self, items: list[Any], noted: Snapshot) -> list[Any]:
        """Leave out what cannot change, and note what is empty and what is a tensor."""
        by_kind: defaultdict[type, list[Any]] = defaultdict(list)
        for item in items:
            by_kind[type(item)].append(item)
        left: list[Any] = []
        for kind, found in by_kind.items():
            if kind in CLASSES:
                self.tensors.update(map(storage_key, found))
                if self._around is None:
                    deque(map(noted.watch_tensor, found), 0)
            elif kind in _CONTAINERS:
                noted.empty += filterfalse(None, found)
                left += filter(None, found)
            elif kind is tuple:
                left += [item for item in found if not _CONSTANT.issuperset(map(type, item))]
            elif kind is BuiltinFunctionType:
                left += [item.__self__ for item in found if ways_of(type(item.__self__))]
            elif kind not in _CONSTANT:
                left += found
        return left

    def _visit(self, item: Any, noted: Snapshot) -> Iterable[Any]:
        """Note one item; return what it leads to."""
        kind = type(item)
        if kind in self._modules:
            noted.dicts.append(item.__dict__)
            return item.__dict__.values()  # type: ignore[no-any-return]
        if kind in DICTS:
            noted.dicts.append(item)
            return dict.values(item)
        if kind in LISTS:
            noted.lists.append(item)
            return item  # type: ignore[no-any-return]
        if kind is tuple:
            return item  # type: ignore[no-any-return]
        if self._around is not None:
            if kind in _AROUND:
                self._around[id(item)] = item
                del self._seen[id(item)]
                return ()
            self._around[id(kind)] = kind
            if kind is FunctionType and not is_foreign(item):
                self._around[id(item.__globals__)] = item.__globals__
                self._functions.append(item)
        if isinstance(item, Tensor):
            if not is_lazy(item):
                self.tensors.add(storage_key(item))
            return ()
        if self.generators.add(item):
            return ()
        if kind in _PARTS:
            return _PARTS[kind](item)
        if kind in _WATCHES:
            return _WATCHES[kind](noted, item)
        return self._look_into(item, noted)

    def _look_into(self, item: Any, noted: Snapshot) -> Iterable[Any]:
        """Note a class, or what an object holds; return what it leads to."""
        kind = type(item)
        if isinstance(item, type):
            return () if is_foreign(item) else noted.watch_class(item)
        if kind.__name__ == "ndarray" and kind.__module__ == "numpy":  # which may not be there
            return noted.watch_memory(item)
        if not isinstance(item, nn.Module) and kind not in _NAMESPACES and is_foreign(kind):
            return ()
        inside: Iterable[Any] = ()
        if isinstance(item, dict):
            noted.dicts.append(item)
            inside = dict.values(item)
        elif isinstance(item, (list, deque, set)):
            noted.lists.append(item)
            inside = item
        held = getattr(item, "__dict__", None)
        if type(held) is not dict:
            return chain(inside, noted.watch_slots(item))
        if isinstance(item, nn.Module):
            self._modules.add(kind)
        noted.dicts.append(held)
        return chain(inside, held.values())


@contextmanager
def untouched(
    model: nn.Module, modules: Sequence[nn.Module], generators: Generators, *, trusting: bool = False
) -> Iterator[Surroundings]:
    """Put everything back that a count inside changes around its copy; generators that are met join the others.

    Errors: CountError if it changed the model itself, or left tensors where they cannot be found.
    """
    surroundings = Surroundings(modules, generators, trusting=trusting)
    freezes = not gc.get_freeze_count()
    try:
        if freezes:  # so that a collection looks at what is new only
            gc.freeze()
        yield surroundings
    except BaseException as error:
        _let_go(error)
        raise
    finally:
        changed = surroundings.put_back()
        left = surroundings.left_behind()
        if freezes:
            gc.unfreeze()
        _drop(left)
    name = type(model).__name__
    if changed:
        raise CountError(
            f"{name} changes itself, and not the copy that is counted, through a global or a function that cannot be "
            "copied: it is as it was, but the count mixes both; keep what forward writes in the module"
        )
    if left:
        shapes = format_shapes([tensor.shape for tensor in left[:3]])
        raise CountError(
            f"{name} keeps tensors of the count ({shapes}) outside itself, where the next run would find them: they "
            "are taken out; keep what forward writes in the module"
        )


def _forget_jagged(was: Tensor | None) -> Callable[[], bool]:
    """Return what lets PyTorch make its own anew, after one that is of the count."""

    def undo() -> bool:
        setattr(nested_tensor, _JAGGED, was)
        return False

    return undo


def _let_go(error: BaseException | None) -> None:
    """Clear what the frames of a failure hold."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _drop(tensors: list[Tensor]) -> None:
    """Take tensors out of the containers and classes that still hold them."""
    ids = {id(tensor) for tensor in tensors}
    for holder in gc.get_referrers(*tensors) if tensors else ():
        if type(holder) in DICTS:
            # Of a class one sees the dictionary, which only the class may change.
            kind = next((each for each in gc.get_referrers(holder) if isinstance(each, type)), None)
            for key in [key for key, held in holder.items() if id(held) in ids]:
                delattr(kind, key) if kind else holder.pop(key)
        elif type(holder) in LISTS and holder is not tensors:
            kept = [held for held in holder if id(held) not in ids]
            holder.clear()
            (holder.update if type(holder) is set else holder.extend)(kept)


#: What has parts and does not change itself; and what does.
_PARTS: Mapping[type, Callable[[Any], Iterable[Any]]] = {
    FunctionType: lambda f: [f.__defaults__, f.__kwdefaults__, vars(f), *(f.__closure__ or ())],
    MethodType: lambda method: [method.__func__, method.__self__],
    partial: lambda held: [held.func, held.args, held.keywords],
}
_WATCHES: Mapping[type, Callable[[Snapshot, Any], Iterable[Any]]] = {
    CellType: Snapshot.watch_cell,
    _lru_cache_wrapper: Snapshot.watch_cache,
    array: Snapshot.watch_memory,
    bytearray: Snapshot.watch_memory,
}
