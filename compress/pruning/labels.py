"""Labels of channels: which are the same, which are tied, and which are locked.

Every axis of a tensor that can shrink has an array with a label for each of its positions; an axis without one (None)
keeps its size. Two labels are the `same` where an operator pairs them, and a `tie` where they can only go together.
"""

from collections.abc import Hashable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

#: Why an axis stays that is added to, multiplied by or paired with one that does, as the input's.
MEETS = "meets something that keeps its size, such as the input"
Ids = NDArray[np.int64]
#: The labels of each axis of a tensor.
Axes = tuple[Ids | None, ...]


class UnionFind:
    """Sets of numbers that grow together."""

    def __init__(self) -> None:
        self.parent: Ids = np.zeros(0, dtype=np.int64)

    def grow(self, size: int) -> None:
        """Make numbers up to a size, each a set of its own."""
        self.parent = np.concatenate([self.parent, np.arange(len(self.parent), size, dtype=np.int64)])

    def find(self, ids: Ids) -> Ids:
        """Return the smallest number of each one's set."""
        roots = self.parent[ids]
        while True:
            above = self.parent[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self.parent[ids] = roots
        return roots

    def union(self, some: Ids, others: Ids) -> None:
        """Join the sets of each pair."""
        while True:
            left, right = self.find(some), self.find(others)
            differ = left != right
            if not differ.any():
                return
            np.minimum.at(self.parent, np.maximum(left, right)[differ], np.minimum(left, right)[differ])


class Labels:
    """What a first trace learns: the rules of the operators write here."""

    #: Whether this is a second trace, which compares with what a first has learnt.
    checks = False

    def __init__(self) -> None:
        self.size = 0
        self.alike, self.tied = UnionFind(), UnionFind()
        self.reasons: dict[int, str] = {}
        self.bundles: dict[int, Ids] = {}
        self._made: dict[Hashable, Ids] = {}
        self._index: dict[tuple[int, ...], int] = {}
        self._faults: list[str] = []

    def fresh(self, many: int, key: Hashable = None) -> Ids:
        """Make labels; a later trace gets the same ones by the key."""
        if key is not None and key in self._made:
            return self._made[key]
        made = np.arange(self.size, self.size + many, dtype=np.int64)
        self.size += many
        self.alike.grow(self.size)
        self.tied.grow(self.size)
        if key is not None:
            self._made[key] = made
        return made

    def recall(self, key: Hashable) -> Ids | None:
        """Return the labels that were made at a place by an earlier trace."""
        return None

    def same(self, some: Ids | None, others: Ids | None) -> None:
        """State that positions are paired; beside an axis that keeps its size both do."""
        if some is None or others is None:
            for each in (some, others):
                self.lock(each, MEETS)
        else:
            self.alike.union(some, others)
            self.tied.union(some, others)

    def tie(self, some: Ids, others: Ids) -> None:
        """State that positions can only go together."""
        self.tied.union(some, others)

    def tie_rows(self, rows: Ids) -> None:
        """State that what is in one row can only go together. Shapes: (rows, many)."""
        self.tie(np.repeat(rows[:, 0], rows.shape[1]), rows.ravel())

    def lock(self, ids: Ids | None, reason: str) -> None:
        """State that positions stay, and why; the first reason is kept."""
        if ids is not None:
            for each in np.unique(ids).tolist():
                self.reasons.setdefault(each, reason)

    def bundle(self, members: Ids) -> Ids:
        """Tie the labels of each row, and return one label for it. Shapes: (rows, many) -> (rows)."""
        if members[0].size == 1:
            return members[:, 0]
        made = self.fresh(len(members))
        self.tie_rows(np.concatenate([made[:, None], members], axis=1))
        for one, row in zip(made.tolist(), members, strict=True):
            self.bundles[one] = row
        return made

    def components(self, members: Ids) -> int:
        """Count the units that would be left if each row were tied."""
        roots = self.tied.find(members.ravel()).reshape(members.shape)
        low = roots.min(axis=1)
        if (roots == low[:, None]).all():
            return len(np.unique(low))
        local = UnionFind()
        names, places = np.unique(roots, return_inverse=True)
        rows: Ids = places.astype(np.int64).reshape(roots.shape)
        local.grow(len(names))
        local.union(np.repeat(rows[:, 0], rows.shape[1]), rows.ravel())
        return len(np.unique(local.find(np.arange(len(names)))))

    def finish(self) -> None:
        """Make bundles of the same members the same, for a later trace to find them by."""
        every = np.arange(self.size)
        before = None
        while before is None or not np.array_equal(before, self.alike.find(every)):
            before = self.alike.find(every)
            self._index = {}
            for one, row in sorted(self.bundles.items()):
                key = tuple(self.alike.find(row).tolist())
                first = self._index.setdefault(key, one)
                self.alike.union(np.array([first]), np.array([one]))

    def find_bundle(self, members: Iterable[int]) -> int | None:
        """Return the label that a first trace gave to these members."""
        key = tuple(self.alike.find(np.array(list(members), dtype=np.int64)).tolist())
        return self._index.get(key)

    def note_fault(self, fault: str) -> None:
        """Note what is wrong of the operator at hand, in a sentence."""
        self._faults.append(fault)

    def take_faults(self) -> list[str]:
        """Return what was noted, and forget it."""
        found, self._faults = self._faults, []
        return found

    def agrees(self, some: Ids | None, others: Ids | None) -> bool:
        """Return whether labels are the same ones."""
        if some is None or others is None:
            return some is others
        return len(some) == len(others) and np.array_equal(self.alike.find(some), self.alike.find(others))

    def locked(self) -> dict[int, str]:
        """Map each tied set that stays to the reason."""
        roots = self.tied.find(np.array(list(self.reasons), dtype=np.int64)).tolist()
        found: dict[int, str] = {}
        for root, reason in zip(roots, self.reasons.values(), strict=True):
            found.setdefault(root, reason)
        return found


class Comparison(Labels):
    """What a second trace, of a model that was cut, finds wrong: labels of the first that meet others now."""

    checks = True

    def __init__(self, first: Labels, locked: Mapping[int, str]) -> None:
        super().__init__()
        self.first = first
        self._locked = locked

    def recall(self, key: Hashable) -> Ids | None:
        """Return the labels that the first trace made at a place."""
        return self.first._made.get(key)

    def fresh(self, many: int, key: Hashable = None) -> Ids:
        """Return the labels that the first trace made at this place; others are nobody's."""
        made = self.first._made.get(key) if key is not None else None
        if made is None or len(made) != many:
            self.note_fault("it makes channels that were not there")
            return np.full(many, -1, dtype=np.int64)
        return made

    def same(self, some: Ids | None, others: Ids | None) -> None:
        """Compare a pairing."""
        if some is None or others is None:
            for each in (some, others):
                self.lock(each, MEETS)
        elif not self.agrees(some, others):
            self.note_fault("it pairs other channels")

    def agrees(self, some: Ids | None, others: Ids | None) -> bool:
        """Return whether labels are the same ones in the first trace; nobody's are none."""
        nobodys = any(ids is not None and (ids < 0).any() for ids in (some, others))
        return not nobodys and self.first.agrees(some, others)

    def tie(self, some: Ids, others: Ids) -> None:
        """Compare a tie."""
        if len(some) != len(others) or not np.array_equal(self.first.tied.find(some), self.first.tied.find(others)):
            self.note_fault("it ties other channels")

    def lock(self, ids: Ids | None, reason: str) -> None:
        """Object to a lock that the first trace did not see."""
        if ids is not None and len(ids) and not all(int(each) in self._locked for each in self.first.tied.find(ids)):
            self.note_fault(reason)

    def bundle(self, members: Ids) -> Ids:
        """Return the labels of rows that were tied before."""
        if members.shape[1] == 1:
            return members[:, 0]
        found = [self.first.find_bundle(row) for row in members]
        if None in found:
            self.note_fault("it ties other channels")
        return np.array([-1 if each is None else each for each in found], dtype=np.int64)

    def components(self, members: Ids) -> int:
        """Count as the first trace did."""
        return self.first.components(members)
