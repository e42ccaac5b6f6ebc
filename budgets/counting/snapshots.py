"""Containers, variables, classes and caches as they are at one moment, and what makes them so again."""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from functools import partial
from itertools import chain, islice
from operator import is_
from types import CellType
from typing import Any

from torch import Tensor, strided

from featherpress.budgets.counting.memory import storage_key

DICTS = frozenset({dict, OrderedDict, defaultdict, Counter})
LISTS = frozenset({list, deque, set})
_COMPARED = frozenset({str, int, float, bool})
_NOTHING = object()
#: What an array may hold, in bytes, to be copied in case that it changes.
MOST_BYTES = 1 << 20


class Snapshot:
    """Containers and all that they hold, one list after another, so that one pass compares it; and how to undo others.

    A container that was empty is only to be emptied again.
    """

    def __init__(self) -> None:
        self.empty: list[Any] = []
        self.dicts: list[dict[Any, Any]] = []
        self.lists: list[Any] = []
        self.undo: list[Callable[[], bool]] = []

    def close(self) -> None:
        """Note what the containers hold now."""
        self._sizes = list(map(len, chain(self.dicts, self.lists)))
        self._keys = list(self._names())
        self._held = list(self._holds())

    def put_back(self) -> bool:
        """Undo all changes; return whether there were any."""
        changed = [any(self.empty), *(undo() for undo in self.undo)]
        if changed[0]:
            for item in filter(None, self.empty):
                item.clear()
        if self._differs():
            changed.append(not self._says_the_same())
            self._refill()
        return any(changed)

    def _names(self) -> Iterator[Any]:
        # In the order of `_holds`: an OrderedDict would name its keys in its own, which may be another.
        return chain.from_iterable(map(dict.keys, self.dicts))

    def _holds(self) -> Iterator[Any]:
        return chain(chain.from_iterable(map(dict.values, self.dicts)), chain.from_iterable(self.lists))

    def _differs(self) -> bool:
        same = list(map(len, chain(self.dicts, self.lists))) == self._sizes
        same = same and all(map(is_, self._holds(), self._held))
        return not (same and all(map(is_, self._names(), self._keys)))

    def _says_the_same(self) -> bool:
        """Return whether all that was replaced was so by its equal, as where code is written anew to be copied."""
        if list(map(len, chain(self.dicts, self.lists))) != self._sizes or list(self._names()) != self._keys:
            return False
        return all(now is was or _is_equal(now, was) for now, was in zip(self._holds(), self._held, strict=True))

    def _refill(self) -> None:
        sizes, keys, held = iter(self._sizes), iter(self._keys), iter(self._held)
        for item, size in zip(self.dicts, sizes, strict=False):
            was = dict(zip(islice(keys, size), islice(held, size), strict=True))
            reset(item, was, item.__setitem__, item.__delitem__)
        for item, size in zip(self.lists, sizes, strict=True):
            listed = list(islice(held, size))
            if len(item) != size or not all(map(is_, item, listed)):
                item.clear()
                (item.update if isinstance(item, set) else item.extend)(listed)

    def watch_class(self, kind: type) -> Iterable[Any]:
        """Note a class; return what it holds, out of what functions are wrapped in."""
        was = dict(vars(kind))
        self.undo.append(lambda: reset(vars(kind), was, lambda k, v: setattr(kind, k, v), lambda k: delattr(kind, k)))
        return [v.__func__ if isinstance(v, (staticmethod, classmethod)) else v for v in was.values()]

    def watch_slots(self, item: Any) -> Iterable[Any]:
        """Note an object that has no dictionary by the names that its class gives."""
        names = [name for kind in type(item).__mro__ for name in vars(kind).get("__slots__", ())]
        names = [name for name in names if name != "__dict__"]

        def held() -> dict[str, Any]:
            return {name: getattr(item, name) for name in names if hasattr(item, name)}

        was = held()
        put, drop = partial(object.__setattr__, item), partial(object.__delattr__, item)
        self.undo.append(lambda: reset(held(), was, put, drop))
        return was.values()

    def watch_cell(self, cell: CellType) -> Iterable[Any]:
        """Note a variable of a function."""
        was = _content(cell)

        def undo() -> bool:
            if _content(cell) is was:
                return False
            if was is _NOTHING:
                del cell.cell_contents
            else:
                cell.cell_contents = was
            return True

        self.undo.append(undo)
        return [was]

    def watch_memory(self, item: Any) -> Iterable[Any]:
        """Note an array of numbers, of Python's or numpy's, unless it is large."""
        with memoryview(item) as view:
            if view.readonly or view.nbytes > MOST_BYTES or "O" in view.format:
                return ()
            memory, place = view.tobytes(), ... if view.ndim != 1 else slice(None)
        was = copy(item)

        def undo() -> bool:
            if memoryview(item).tobytes() == memory:
                return False
            item[place] = was
            return True

        self.undo.append(undo)
        return ()

    def watch_tensor(self, tensor: Tensor) -> None:
        """Note a tensor by what it looks at, its gradient and its attributes; what it holds is not copied."""
        if tensor.layout is not strided:
            return
        was, needs, slope = tensor.detach(), tensor.requires_grad, tensor.grad if tensor.is_leaf else None
        looks = _look(was)
        (self.dicts if tensor.__dict__ else self.empty).append(tensor.__dict__)

        def undo() -> bool:
            moved, other = _look(tensor) != looks, tensor.is_leaf and tensor.grad is not slope
            if moved:
                tensor.data = was
            if other:
                tensor.grad = slope
            changed = tensor.requires_grad is not needs
            if changed:
                tensor.requires_grad_(needs)
            return moved or other or changed

        self.undo.append(undo)

    def watch_cache(self, cache: Any) -> Iterable[Any]:
        """Empty a cache that the forward has added to: what is missing is worked out again."""
        misses = cache.cache_info().misses

        def undo() -> bool:
            if cache.cache_info().misses == misses:
                return False
            cache.cache_clear()
            return True

        self.undo.append(undo)
        return [cache.__wrapped__]


def reset(
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


def _look(tensor: Tensor) -> tuple[Any, ...]:
    """Tell what a tensor looks at, and how."""
    return storage_key(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()


def _is_equal(now: Any, was: Any) -> bool:
    """Compare text, numbers and dictionaries of them; what else is new is not taken for the old."""
    parts = (*now, *now.values()) if type(now) is dict else (now,)
    return type(now) is type(was) and _COMPARED.issuperset(map(type, parts)) and bool(now == was)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _NOTHING
