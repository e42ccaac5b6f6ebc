"""Memory between operators: which tensor is written when, and who reads it last."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

#: Bytes of a floating-point element at the precisions that are shown.
PRECISIONS = {"fp32": 4, "fp16": 2, "int8": 1}

IDEAL_TEXT = (
    "4, 2 or 1 for every number; an exported file is larger, by its graph and, in eight bits, by scales and what "
    "stays in float"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes with floating-point elements at the sizes of `PRECISIONS`; all other tensors keep their type's."""

    fp32: int
    fp16: int
    int8: int

    @classmethod
    def of(cls, floats: int, others: int) -> "Footprint":
        """Make one of a number of floating-point elements and the bytes of everything else."""
        return cls(**{name: floats * size + others for name, size in PRECISIONS.items()})


def storage_key(tensor: Tensor) -> int:
    """Tell tensors' storages apart; one without a storage, such as a sparse one, is only itself."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else -id(tensor)


@dataclass(slots=True)
class Lifetimes:
    """Every tensor that the operators write, from the operator that writes it to the last that reads it.

    A view shares its storage, and so its life, with what it looks at; an operator in place writes nothing new. Inputs
    are there from the start; results of the whole model stay to the end. Tensors are told apart by their storage,
    which the model may free and reuse: a new one under an old key replaces it.
    """

    clock: int = 0
    born: list[int] = field(default_factory=list)
    died: list[int] = field(default_factory=list)
    kinds: list[tuple[int, torch.dtype]] = field(default_factory=list)
    places: list[str | None] = field(default_factory=list)
    alive: dict[int, int] = field(default_factory=dict)

    def take(self, inputs: Sequence[Tensor]) -> None:
        """Note the model's inputs, each storage once."""
        for tensor in inputs:
            if storage_key(tensor) not in self.alive:
                self.write([tensor], (), None)

    def read(self, key: int) -> None:
        """Note that the operator of this moment reads a storage."""
        entry = self.alive.get(key)
        if entry is not None:
            self.died[entry] = self.clock

    def write(self, results: Sequence[Tensor], known: Container[int], place: str | None) -> None:
        """Note that it writes what is in no storage it was given; a `place` of None is an input's."""
        for tensor in results:
            key, count = storage_key(tensor), tensor.numel()
            if count and key not in known:
                self.alive[key] = len(self.born)
                self.born.append(self.clock)
                self.died.append(self.clock)
                self.kinds.append((count, tensor.dtype))
                self.places.append(place)

    def keep(self, results: Iterable[Tensor]) -> None:
        """Let the model's results stay to the end."""
        for tensor in results:
            self.read(storage_key(tensor))

    @property
    def sizes(self) -> list[int]:
        """What each takes in the model's own type."""
        return [count * dtype.itemsize for count, dtype in self.kinds]

    def _elements(self) -> list[tuple[int, int]]:
        """Split what each takes into floating-point elements and other bytes."""
        return [(n, 0) if dtype.is_floating_point else (0, n * dtype.itemsize) for n, dtype in self.kinds]

    def written(self) -> dict[str, int]:
        """Sum what was written by place, in the model's own types."""
        sums: dict[str, int] = {}
        for place, size in zip(self.places, self.sizes, strict=True):
            if place is not None:
                sums[place] = sums.get(place, 0) + size
        return sums

    @property
    def total(self) -> Footprint:
        """Everything written, at each precision."""
        pairs = zip(self.places, self._elements(), strict=True)
        mine = [elements for place, elements in pairs if place is not None]
        return Footprint.of(sum(floats for floats, _ in mine), sum(others for _, others in mine))

    def highest(self) -> int:
        """Find the most bytes alive at one moment, in the model's own types."""
        return self._peak(self.sizes)

    def peak(self) -> Footprint:
        """Find the most bytes alive at one moment, at each precision."""
        mixed = self._elements()
        peaks = {name: self._peak([floats * n + others for floats, others in mixed]) for name, n in PRECISIONS.items()}
        return Footprint(**peaks)

    def _peak(self, sizes: Sequence[int]) -> int:
        change = [0] * (self.clock + 2)
        for born, died, size in zip(self.born, self.died, sizes, strict=True):
            change[born] += size
            change[died + 1] -= size
        return max(accumulate(change), default=0)
