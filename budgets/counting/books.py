"""What the operators of a run are booked as: work by module, who reads which parameter, how long tensors live."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import ref

from torch import Tensor, nn

from featherpress.budgets.counting.attribution import ModuleStack
from featherpress.budgets.counting.formulas import Formula
from featherpress.budgets.counting.memory import STRIDED, Lifetimes, storage_key
from featherpress.budgets.counting.meta_kernels import CLASSES, MetaKernel
from featherpress.budgets.counting.operators import Facts

_numel = Tensor.numel
#: The arguments of an operator, the tensors among them, and the storages of these.
Taken = tuple[Sequence[Any], Sequence[Tensor], Sequence[int]]


class Plan(NamedTuple):
    """What an operator is, what counts it, what answers it on meta tensors, and what else is noted of its calls."""

    facts: Facts
    formula: Formula | None
    kernel: MetaKernel | None
    also: Callable[["Books", str, Taken, Any], None] | None


class Books:
    """Adds up what each operator costs, by the module that runs.

    `parameters` maps a storage of the copy to the id of the original's parameter.
    """

    def __init__(self, stack: ModuleStack, parameters: dict[int, int]) -> None:
        self.stack = stack
        self.parameters = parameters
        self.macs: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.elementwise: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.calls: defaultdict[str, int] = defaultdict(int)
        self.readers: defaultdict[int, set[str]] = defaultdict(set)
        self.lifetimes = Lifetimes()
        #: All tensors that operators made.
        self.made: list[ref[Tensor]] = []
        #: Tensors without values that operators read and none wrote, by storage.
        self.unmade: dict[int, Tensor] = {}
        #: MACs of each core operator, and the storages that it reads.
        self.core: list[tuple[int, Sequence[int]]] = []
        #: Parameters, by id, whose work values choose; and how many were chosen of how many, in order.
        self.routed: set[int] = set()
        self.choices: list[tuple[int, int]] = []
        #: Parameters that operators read and the model does not name: elements by storage.
        self.foreign_params: dict[int, int] = {}

    def read(self, name: str, tensors: Sequence[Tensor]) -> list[int]:
        """Note who reads which parameter, and how long other tensors live; return the storages of all."""
        lifetimes, parameters = self.lifetimes, self.parameters
        lifetimes.clock += 1
        alive, keys = lifetimes.alive, []
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata if tensor.layout is STRIDED else storage_key(tensor)
            keys.append(key)
            if (owner := parameters.get(key)) is not None:
                self.readers[owner].add(name)
                continue
            if (number := alive.get(key)) is not None:
                lifetimes.died[number] = lifetimes.clock
            elif tensor.is_meta:
                self.unmade[key] = tensor
            if type(tensor) is nn.Parameter:
                self.foreign_params[key] = tensor.numel()
        return keys

    def write(self, plan: Plan, path: str, taken: Taken, out: Any) -> list[Tensor]:
        """Count an operator of a module by what it took and what it returned; return the tensors of its result."""
        (facts, formula, _, also), (args, tensors, keys) = plan, taken
        results, name = [out] if type(out) is Tensor else tensors_of((out,)), facts.name
        self.calls[name] += 1
        if also:
            also(self, path, taken, out)
        if formula:
            macs = int(formula(args, out))
            self.macs[path, name] += macs
            self.core.append((macs, keys))
        elif facts.elementwise:
            self.elementwise[path, name] += max(map(_numel, (*tensors, *results)), default=0)
        if facts.writes:
            self.lifetimes.write(results, keys, path)
            self.made.extend(map(ref, results))
        return results

    @property
    def weight_macs(self) -> Counter[int]:
        """MACs of the operators that read a parameter, by its id; of those that read none, by 0."""
        sums: Counter[int] = Counter()
        for macs, keys in self.core:
            for key in keys:
                sums[self.parameters.get(key, 0)] += macs
        return sums

    def book(self, name: str, read: list[Tensor], macs: int, elements: int) -> None:
        """Note an operator that was answered above the dispatcher: what it reads, and its work."""
        self.read(name, read)
        self.calls[name] += 1
        self.macs[self.stack.path, name] += macs
        self.elementwise[self.stack.path, name] += elements


def given(facts: Facts, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """List the tensors among an operator's arguments."""
    found: list[Tensor] = []
    count = len(args)
    for place in facts.places:
        if place < count:
            value = args[place]
            if type(value) in CLASSES:
                found.append(value)
            elif value is not None:
                found += tensors_of((value,))
    return found + tensors_of(kwargs.values()) if kwargs else found


def tensors_of(values: Iterable[Any]) -> list[Tensor]:
    """List the tensors among values and in lists of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            found += tensors_of(value)
        elif value is not None and isinstance(value, Tensor):  # slow to ask of what is none
            found.append(value)
    return found


def _note_choice(books: Books, path: str, taken: Taken, out: Any) -> None:
    x, k, *dim = taken[0]
    books.choices.append((k, x.shape[dim[0] if dim else -1]))


def _note_experts(books: Books, path: str, taken: Taken, out: Any) -> None:
    """Products of rows with the matrix of their group: those of experts."""
    _, tensors, keys = taken
    books.routed |= {books.parameters.get(key, 0) for key, each in zip(keys, tensors, strict=True) if each.dim() == 3}


def _note_sampling(books: Books, path: str, taken: Taken, out: Any) -> None:
    """Elements a deformable convolution interpolates: one an input channel, tap and output position."""
    image, weight = taken[0][:2]
    sampled = out.numel() // weight.shape[0] * image.shape[1] * weight.shape[2] * weight.shape[3]
    books.elementwise[path, "torchvision::deform_conv2d"] += int(sampled)


#: What is noted of the calls of an operator besides its cost.
ALSO = {
    "aten::topk": _note_choice,
    "torchvision::deform_conv2d": _note_sampling,
    **dict.fromkeys(("aten::_grouped_mm", "aten::_scaled_grouped_mm", "aten::_scaled_grouped_mm_v2"), _note_experts),
}
