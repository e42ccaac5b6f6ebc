"""Memory between operators: which tensor is written when, and who reads it last."""

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from operator import mul

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

STRIDED = torch.strided
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
    def of(cls, measure: Callable[[int], int]) -> "Footprint":
        """Make one by what measures bytes when a floating-point element takes so many."""
        return cls(**{name: measure(size) for name, size in PRECISIONS.items()})


def size_of(elements: int, dtype: torch.dtype, float_size: int = 0) -> int:
    """Return the bytes of so many elements; floating-point ones may take another size than their own."""
    return elements * (float_size if float_size and dtype.is_floating_point else dtype.itemsize)


def measure_of(numbers: Mapping[torch.dtype, int]) -> Callable[[int], int]:
    """Return what tells the bytes of so many elements of each type; floating-point ones at a size, 0 their own."""
    return lambda float_size: sum(size_of(amount, dtype, float_size) for dtype, amount in numbers.items())


def storage_key(tensor: Tensor) -> int:
    """Tell tensors' storages apart; one without a storage, such as a sparse one, is only itself."""
    return tensor.untyped_storage()._cdata if tensor.layout is STRIDED else -id(tensor)


@dataclass(slots=True)
class Lifetimes:
    """Every tensor that the operators write, from the operator that writes it to the last that reads it.

    A view shares its storage, and so its life, with what it looks at; an operator in place writes nothing new. Inputs
    are there from the start; results of the whole model stay to the end. Tensors are told apart by their storage,
    whose key is not given to another one while what is `held` of it is there.
    `alive` is the number of a storage's tensor, by which the lists say of each how much it holds, who wrote it (None:
    it is an input), and when it was written and last read.
    """

    clock: int = 0
    alive: dict[int, int] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    dtypes: list[torch.dtype] = field(default_factory=list)
    places: list[str | None] = field(default_factory=list)
    born: list[int] = field(default_factory=list)
    died: list[int] = field(default_factory=list)
    held: list[object] = field(default_factory=list)

    def take(self, inputs: Sequence[Tensor]) -> None:
        """Note the model's inputs, each storage once."""
        self.write(inputs, self.alive, None)

    def read(self, key: int) -> None:
        """Note that the operator of this moment reads a storage, where it is known who wrote it."""
        number = self.alive.get(key)
        if number is not None:
            self.died[number] = self.clock

    def write(self, results: Sequence[Tensor], known: Container[int], place: str | None) -> None:
        """Note that it writes what is in no storage it was given; a `place` of None is an input's."""
        for tensor in results:
            storage = tensor.untyped_storage() if tensor.layout is STRIDED else None
            key = -id(tensor) if storage is None else storage._cdata
            if key not in known:
                self.alive[key] = len(self.sizes)
                self.sizes.append(tensor.numel())
                self.dtypes.append(tensor.dtype)
                self.places.append(place)
                self.born.append(self.clock)
                self.died.append(self.clock)
                if storage is not None:  # what keeps its key from being given to another one, and none of its memory
                    self.held.append(storage if tensor.is_meta else StorageWeakRef(storage))  # type: ignore[no-untyped-call]

    def keep(self, results: Iterable[Tensor]) -> None:
        """Let the model's results stay to the end."""
        for tensor in results:
            self.read(storage_key(tensor))

    def written(self) -> Counter[str]:
        """Sum what was written by place, in the model's own types."""
        sums: Counter[str] = Counter()
        for place, elements, dtype in zip(self.places, self.sizes, self.dtypes, strict=True):
            if place is not None:
                sums[place] += size_of(elements, dtype)
        return sums

    def total(self) -> Callable[[int], int]:
        """Return what tells the bytes written, in the model's own types (0) or with floats of another size."""
        numbers: defaultdict[torch.dtype, int] = defaultdict(int)
        for place, elements, dtype in zip(self.places, self.sizes, self.dtypes, strict=True):
            if place is not None:
                numbers[dtype] += elements
        return measure_of(numbers)

    def peak(self) -> Callable[[int], int]:
        """Return what tells the most bytes alive at one moment, as `total` does."""
        changes: defaultdict[torch.dtype, list[int]] = defaultdict(lambda: [0] * (self.clock + 2))
        for elements, dtype, born, died in zip(self.sizes, self.dtypes, self.born, self.died, strict=True):
            change = changes[dtype]
            change[born] += elements
            change[died + 1] -= elements
        curves = [(dtype, list(accumulate(change))) for dtype, change in changes.items()]
        if len(curves) == 1:  # of one type, as mostly: at one moment, whatever its size
            curves = [(dtype, [max(curve)]) for dtype, curve in curves]

        def most(float_size: int) -> int:
            sized = (map(mul, curve, repeat(size_of(1, dtype, float_size))) for dtype, curve in curves)
            return max(map(sum, zip(*sized, strict=True)), default=0)

        return most
