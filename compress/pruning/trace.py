"""What is noted of a model that runs: its operators, its work, what is wrong of a cut, and what was decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from featherpress.compress.pruning.labels import Axes, Ids, Labels

#: Operators that change a shape.
VIEWING = frozenset({"aten::view", "aten::_unsafe_view", "aten::reshape", "aten::_reshape_alias"})
#: A model's tensors by id, with all their names.
Named = Mapping[int, tuple[Tensor, tuple[str, ...]]]
#: Where an operator ran: the module's path, its call, the operator, and which of these in that call.
Key = tuple[str, int, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model and the arguments of its forward."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(slots=True)
class Record:
    """What the first trace saw of an operator."""

    taken: list[Axes]
    given: list[Axes]
    shapes: list[tuple[int, ...]]
    scalars: tuple[float, ...]


@dataclass(slots=True)
class Work:
    """Multiply-accumulates of one operator: its factors are axes that can shrink."""

    path: str
    macs: int
    factors: list[Ids]


@dataclass(slots=True)
class Decisions:
    """What is chosen of several ways, by the place: which axis of a view stays free, how groups are cut.

    `refused` are choices that a second trace found wrong.
    """

    chosen: dict[tuple[Key, int], Any] = field(default_factory=dict)
    refused: dict[Key, set[Any]] = field(default_factory=dict)
    #: Operators whose channels stay, with the reason.
    locked: dict[Key, str] = field(default_factory=dict)
    #: Numbers that modules keep, by path and name, and the axes of operators' tensors that each is the width of.
    attributes: dict[tuple[str, str], set[tuple[Key, bool, int, int]]] = field(default_factory=dict)
    #: Views whose width is computed from that of the layer before them, and modules all of whose views are such.
    widths: set[Key] = field(default_factory=set)
    attention: set[str] = field(default_factory=set)
    #: How many ways to mend an operator were tried.
    tried: dict[Key, int] = field(default_factory=dict)
    #: Axes of tensors, by id, that stay, with the reason.
    still: dict[tuple[int, int], str] = field(default_factory=dict)


@dataclass(slots=True)
class Trace:
    """What a forward said: labels of every parameter's axes, and the work."""

    labels: Labels
    #: By id of the original's tensor.
    params: dict[int, Axes] = field(default_factory=dict)
    records: dict[Key, Record] = field(default_factory=dict)
    work: list[Work] = field(default_factory=list)
    #: Faults of a second trace, by the place.
    faults: dict[Key, list[str]] = field(default_factory=dict)
    #: Numbers that have changed in a second trace and cannot be made good: before and after.
    numbers: dict[Key, list[tuple[float, float]]] = field(default_factory=dict)
    #: Why a second trace could not go on, after the last operator.
    failure: tuple[Key, str] | None = None
    #: Factors by which numbers in the code have changed, with the rows that they multiply.
    scales: dict[Key, tuple[float, list[tuple[tuple[int, ...], int]]]] = field(default_factory=dict)
    #: Of a grouped convolution's or normalisation's weight, by id: how its groups are cut.
    groups: dict[int, str] = field(default_factory=dict)
    read: set[int] = field(default_factory=set)
    #: Whether the model was followed in training as well, where more of it runs.
    trained: bool = False
    #: Ids of the parameters among the tensors, and of running variances.
    parameters: set[int] = field(default_factory=set)
    variances: set[int] = field(default_factory=set)
    #: Axes of activations.
    arrays: list[Ids] = field(default_factory=list)


def is_inside(path: str, root: str) -> bool:
    """Return whether a module is another, or in it."""
    return not root or path == root or path.startswith(f"{root}.")


def describe(value: Any) -> str:
    """Shorten a failure to its first line."""
    text = str(value).strip()
    return text.splitlines()[0][:160] if text else type(value).__name__
