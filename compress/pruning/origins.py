"""Which rows of which weights an activation consists of, while it is only moved about."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from featherpress.compress.pruning.labels import Ids


class Origins:
    """Arrays that broadcast to a tensor's shape, with the row's number in a table of all rows.

    They keep their tensors alive; where none is `wanted` there are none.
    """

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self._arrays: dict[int, tuple[Tensor, Ids]] = {}
        #: By number: the ids of the tensors whose row it is, and which row.
        self.rows: list[tuple[tuple[int, ...], int]] = []

    def of(self, tensor: Tensor) -> Ids | None:
        """Return a tensor's array, None if it was computed from more than rows of one layer."""
        found = self._arrays.get(id(tensor))
        return found[1] if found else None

    def begin(self, tensor: Tensor, axis: int, owners: tuple[int, ...]) -> None:
        """Note the output of a layer: position k of an axis is from row k of its weight and bias."""
        if not self.wanted:
            return
        size = tensor.shape[axis]
        start = len(self.rows)
        self.rows.extend((owners, place) for place in range(size))
        shape = [1] * tensor.dim()
        shape[axis] = size
        self._arrays[id(tensor)] = (tensor, np.arange(start, start + size).reshape(shape))

    def extend(self, source: Tensor, tensor: Tensor, owner: int) -> None:
        """Note that a bias was added, whose row k goes to position k of the last axis."""
        array = self.of(source)
        if array is None or array.size != source.shape[-1] or array.shape[-1] != array.size:
            return
        start = len(self.rows)
        self.rows.extend(((*self.rows[row][0], owner), place) for place, row in enumerate(array.ravel().tolist()))
        self._arrays[id(tensor)] = (tensor, np.arange(start, start + array.size).reshape(array.shape))

    def move(self, source: Tensor, tensor: Tensor, how: Callable[[Ids], Ids]) -> None:
        """Do to the array what was done to the tensor."""
        array = self.of(source)
        if array is None:
            return
        moved = how(array)
        if moved.ndim == tensor.dim():
            self._arrays[id(tensor)] = (tensor, moved)
