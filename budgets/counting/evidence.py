"""In a real run: what tells of work that no operator did, such as a kernel in an extension of Python."""

import gc
from collections.abc import Callable, Collection, Sequence
from weakref import ref

from torch import Tensor, nan, strided

from featherpress.budgets.counting.memory import storage_key
from featherpress.budgets.counting.operators import Facts
from featherpress.budgets.counting.values import checksum

#: What makes memory, and writes at most a constant to it.
BLANK = frozenset(
    f"aten::{prefix}{name}{suffix}"
    for name in ("empty", "zeros", "ones", "full", "empty_strided")
    for prefix, suffix in (("", ""), ("new_", ""), ("", "_like"))
)
_CONSTANT = frozenset({"aten::zero", "aten::fill"})


def _is_old(tensor: Tensor) -> bool:
    """Return whether a tensor was there before the count, which froze what was."""
    return gc.get_freeze_count() > 0 and all(each is not tensor for each in gc.get_objects())


class Evidence:
    """Follows the memory of a real run.

    `refuse` is called with a sentence. `poison` are the places, in the order of results, of those to be spoilt: if what
    no operator reads changes the output, something unseen reads it.
    """

    def __init__(self, refuse: Callable[[str], object], known: Collection[int], poison: Collection[int] = ()) -> None:
        self.refuse, self.poison = refuse, poison
        self.known = set(known)
        #: Memory that was made and not yet written to by an operator, with its sum.
        self.blank: dict[int, tuple[int, ref[Tensor]]] = {}
        #: Results that no operator has read yet, with their places; and those whose memory is gone unread.
        self.unread: dict[int, int] = {}
        self.dead: set[int] = set()
        #: What was there before the count and may be read: constants of a library that the model does not hold.
        self.old: dict[int, Tensor] = {}
        self._places = 0

    def reads(self, facts: Facts, tensors: Sequence[Tensor], keys: Sequence[int]) -> None:
        """Look at what an operator reads."""
        for tensor, key in zip(tensors, keys, strict=True):
            self.unread.pop(key, None)
            if key in self.blank:
                self._check(facts, tensor, key)
            elif key not in self.known and facts.name != "aten::lift_fresh" and tensor.layout is strided:
                if not facts.mutates and (key in self.old or _is_old(tensor)):
                    self.old[key] = tensor
                    continue
                self.refuse("the model reads a tensor that no operator made: the work on it is not seen")

    def writes(self, facts: Facts, results: Sequence[Tensor], keys: Sequence[int]) -> None:
        """Note what an operator wrote."""
        for place, tensor in enumerate(results):
            key = storage_key(tensor)
            if key not in self.old:
                self.known.add(key)
            if key not in keys and key in self.unread:
                self.dead.add(self.unread.pop(key))
            if tensor.is_meta or tensor.layout is not strided:  # a sparse one has no memory of its own
                continue
            if facts.name in BLANK or (facts.name in _CONSTANT and key in self.blank):
                self.blank[key] = checksum(tensor), ref(tensor)
            elif key not in keys:
                self.blank.pop(key, None)
                if place == 0 and tensor.is_floating_point() and not facts.free:
                    self._follow(tensor, key)

    def _follow(self, tensor: Tensor, key: int) -> None:
        if self._places in self.poison:
            tensor.fill_(nan)
        self.unread[key] = self._places
        self._places += 1

    def _check(self, facts: Facts | None, tensor: Tensor, key: int) -> None:
        """Refuse memory that has changed since it was made, and forget it once an operator writes to it."""
        was, made = self.blank[key]
        if made() is None:  # other memory at the same place
            del self.blank[key]
            return
        if checksum(tensor) != was:
            self.refuse(
                "something that is no operator of PyTorch writes to a tensor: the work that it does is not seen"
            )
        if facts is not None and facts.mutates and facts.name not in _CONSTANT:
            del self.blank[key]

    def returns(self, results: Sequence[Tensor]) -> None:
        """Look at what the model returns."""
        for tensor in results:
            key = storage_key(tensor)
            self.unread.pop(key, None)
            if key in self.blank:
                self._check(None, tensor, key)
            elif key not in self.known:
                self.refuse("the model returns a tensor that no operator made: the work on it is not seen")
