"""What a model reaches that is no part of its copy: the original, classes, globals, defaults and caches.

A forward that writes there would leave tensors without values behind. All of it is noted before, and put back after.
"""

import gc
import sys
import traceback
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import _lru_cache_wrapper
from operator import is_
from types import BuiltinFunctionType, CellType, FunctionType, MethodType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.parameter import is_lazy

from featherpress.budgets.counting.costs import format_shapes
from featherpress.budgets.counting.memory import storage_key
from featherpress.errors import CountError

#: Packages to whose classes and globals no model's forward writes.
_FOREIGN = frozenset({*sys.stdlib_module_names, "torch", "torchvision", "numpy", "featherpress"}) - {"__main__"}
_CONSTANT = frozenset(
    {bool, int, float, complex, str, bytes, type(None), range, BuiltinFunctionType, torch.dtype, torch.device}
)
_DICTS = frozenset({dict, OrderedDict, defaultdict})
_LISTS = frozenset({list, deque, set})
_CONTAINERS = _DICTS | _LISTS
_AROUND = frozenset({type, _lru_cache_wrapper})
_NOTHING = object()


class Surroundings:
    """Notes what a model reaches; `put_back` undoes what has changed since.

    `tensors` are the storages that are reached: no operator may write to them.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.tensors: set[int] = set()
        #: All tensors of the count, none of which is to outlive it.
        self.made: list[ref[Tensor]] = []
        #: By id, and so held alive for as long as the id is to be good.
        self._seen: dict[int, Any] = {}
        self._empty: list[Any] = []
        self._undo: list[Callable[[], bool]] = []
        self._queue: deque[Any] = deque(modules)
        #: Classes, caches and globals: no part of the model, though it may lead to them.
        self._around: dict[int, Any] | None = {}
        self._drain()
        self._own = len(self._undo), len(self._empty)
        around, self._around = self._around.values(), None
        kinds = {kind for each in around if isinstance(each, type) for kind in each.__mro__ if not _is_foreign(kind)}
        hooks = [held for name, held in vars(torch_module).items() if name.startswith("_global_")]
        self._reach([*kinds, *around, *hooks, *(vars(sys.modules[kind.__module__]) for kind in kinds)])
        self._drain()

    def put_back(self) -> bool:
        """Undo all changes; return whether the model itself, beside its copy, had changed."""
        changed = [undo() for undo in self._undo]
        filled = list(map(bool, self._empty)) if any(self._empty) else []
        for item in filter(None, self._empty):
            item.clear()
        return any(changed[: self._own[0]]) or any(filled[: self._own[1]])

    def left_behind(self) -> list[Tensor]:
        """List tensors of the count that something still holds; finding that out may take a collection."""
        alive = [tensor for made in self.made if (tensor := made()) is not None]
        if alive:
            del alive
            gc.collect()
            alive = [tensor for made in self.made if (tensor := made()) is not None]
        return alive

    def _drain(self) -> None:
        while self._queue:
            item = self._queue.popleft()
            if id(item) in self._seen:
                continue
            if self._around is not None and type(item) in _AROUND:
                self._around[id(item)] = item
                continue
            self._seen[id(item)] = item
            self._visit(item)

    def _reach(self, items: Iterable[Any]) -> None:
        """Go on to what can change."""
        for item in items:
            kind = type(item)
            if kind in _CONSTANT:
                continue
            if kind in _CONTAINERS and not item:
                self._empty.append(item)
                continue
            if kind is FunctionType:
                if self._around is not None and not _is_foreign(item):
                    self._around[id(item.__globals__)] = item.__globals__
                if not (item.__closure__ or _has_mutable_defaults(item)):
                    continue
            self._queue.append(item)

    def _visit(self, item: Any) -> None:
        kind = type(item)
        if self._around is not None:
            self._around[id(kind)] = kind
        if kind in _DICTS:
            self._watch_dict(item)
        elif isinstance(item, Tensor):
            if not is_lazy(item):
                self.tensors.add(storage_key(item))
        elif kind in _LISTS:
            self._watch_list(item)
        elif kind in _PARTS:
            self._reach(_PARTS[kind](item))
        elif kind in _WATCHES:
            _WATCHES[kind](self, item)
        elif isinstance(item, type):
            self._watch_class(item)
        elif isinstance(item, nn.Module) or not _is_foreign(kind):
            held = getattr(item, "__dict__", None)
            self._reach([held] * (type(held) is dict))

    def _watch_dict(self, item: dict[Any, Any]) -> None:
        was = dict(item)
        self._reach(was.values())

        def undo() -> bool:
            if len(item) == len(was) and all(map(is_, item.values(), was.values())) and item.keys() == was.keys():
                return False
            return _reset(item, was, item.__setitem__, item.__delitem__)

        self._undo.append(undo)

    def _watch_class(self, kind: type) -> None:
        if _is_foreign(kind):
            return
        was = dict(vars(kind))
        self._reach(_unwrapped(was.values()))
        self._undo.append(lambda: _reset(vars(kind), was, lambda k, v: setattr(kind, k, v), lambda k: delattr(kind, k)))

    def _watch_list(self, item: Any) -> None:
        was = list(item)
        self._reach(was)

        def undo() -> bool:
            if len(item) == len(was) and all(map(is_, item, was)):
                return False
            item.clear()
            (item.update if type(item) is set else item.extend)(was)
            return True

        self._undo.append(undo)

    def _watch_cell(self, cell: CellType) -> None:
        was = _content(cell)
        self._reach([was])

        def undo() -> bool:
            if _content(cell) is was:
                return False
            if was is _NOTHING:
                del cell.cell_contents
            else:
                cell.cell_contents = was
            return True

        self._undo.append(undo)

    def _watch_cache(self, cache: Any) -> None:
        """Empty a cache that the forward has added to: what is missing is worked out again."""
        misses = cache.cache_info().misses
        self._reach([cache.__wrapped__])

        def undo() -> bool:
            if cache.cache_info().misses == misses:
                return False
            cache.cache_clear()
            return True

        self._undo.append(undo)


@contextmanager
def untouched(model: nn.Module, modules: Iterable[nn.Module]) -> Iterator[Surroundings]:
    """Put everything back that a count inside changes around its copy.

    Errors: CountError if it changed the model itself, or left tensors where they cannot be found.
    """
    surroundings = Surroundings(modules)
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


def _let_go(error: BaseException | None) -> None:
    """Clear what the frames of a failure hold."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _drop(tensors: list[Tensor]) -> None:
    """Take tensors out of the containers and classes that still hold them."""
    ids = {id(tensor) for tensor in tensors}
    for holder in gc.get_referrers(*tensors) if tensors else ():
        if type(holder) in _DICTS:
            # Of a class one sees the dictionary, which only the class may change.
            kind = next((each for each in gc.get_referrers(holder) if isinstance(each, type)), None)
            for key in [key for key, held in holder.items() if id(held) in ids]:
                delattr(kind, key) if kind else holder.pop(key)
        elif type(holder) in _LISTS and holder is not tensors:
            kept = [held for held in holder if id(held) not in ids]
            holder.clear()
            (holder.update if type(holder) is set else holder.extend)(kept)


def _is_foreign(kind: type | FunctionType) -> bool:
    name: object = kind.__module__  # one may say anything
    return not isinstance(name, str) or name.partition(".")[0] in _FOREIGN or name not in sys.modules


def _has_mutable_defaults(function: FunctionType) -> bool:
    held = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *vars(function).values())
    return not _CONSTANT.issuperset(map(type, held))


def _reset(
    now: Mapping[Any, Any], was: Mapping[Any, Any], put: Callable[[Any, Any], None], drop: Callable[[Any], None]
) -> bool:
    """Make a dictionary, or a class, hold what it held; return whether it did not."""
    added = [key for key in now if key not in was]
    other = [(key, value) for key, value in was.items() if now.get(key, _NOTHING) is not value]
    for key in added:
        drop(key)
    for key, value in other:
        put(key, value)
    return bool(added or other)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _NOTHING


def _unwrapped(values: Iterable[Any]) -> Iterator[Any]:
    """Look into what a class wraps its functions in."""
    for value in values:
        yield value.__func__ if isinstance(value, (staticmethod, classmethod)) else value


#: What has parts and does not change itself; and what does.
_PARTS: Mapping[type, Callable[[Any], Iterable[Any]]] = {
    tuple: iter,
    FunctionType: lambda f: [f.__defaults__, f.__kwdefaults__, vars(f), *(f.__closure__ or ())],
    MethodType: lambda method: [method.__func__, method.__self__],
}
_WATCHES: Mapping[type, Callable[[Surroundings, Any], None]] = {
    CellType: Surroundings._watch_cell,
    _lru_cache_wrapper: Surroundings._watch_cache,
}
