"""What a model costs: rows that sum to totals, all whole numbers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from featherpress.budgets.counting.formulas import CONVENTION
from featherpress.budgets.counting.memory import Footprint
from featherpress.errors import CountError

#: How the model itself is called where a path is expected.
ROOT = "(root)"
#: The path of work done while no module ran.
UNATTRIBUTED = "(unattributed)"
#: The method of a count where only weights are known, and no work.
WEIGHTS = "weights"
#: What rows sum to in the whole model's cost.
SUMMED = ("params", "trainable", "frozen", "unused", "bytes", "macs", "elementwise", "activations")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCost:
    """One row: what belongs to a module itself, without its children.

    A tensor that several modules own has a row of its own: `owners` names them all, and `path` is "shared: " and the
    names. Work done while no module ran has the path "(unattributed)". `calls` counts forwards.
    """

    path: str
    kind: str = ""
    params: int = 0
    trainable: int = 0
    frozen: int = 0
    unused: int = 0
    bytes: int = 0
    macs: int = 0
    elementwise: int = 0
    activations: int = 0
    calls: int = 0
    owners: tuple[str, ...] = ()

    @property
    def flops(self) -> int:
        """Two for each multiply-accumulate."""
        return 2 * self.macs

    @property
    def places(self) -> list[str]:
        """Paths of the modules that it belongs to."""
        return [name.rpartition(".")[0] for name in self.owners] or [self.path]


class Rows(Sequence[ModuleCost]):
    """Rows that are made when they are first looked at."""

    __slots__ = ("_made",)

    def __init__(self, make: Callable[[], tuple[ModuleCost, ...]]) -> None:
        self._made: tuple[ModuleCost, ...] | Callable[[], tuple[ModuleCost, ...]] = make

    def _all(self) -> tuple[ModuleCost, ...]:
        if not isinstance(self._made, tuple):
            self._made = self._made()
        return self._made

    def __getitem__(self, place: Any) -> Any:
        """Return a row, or a tuple of some."""
        return self._all()[place]

    def __len__(self) -> int:
        """Count them."""
        return len(self._all())

    def __eq__(self, other: object) -> bool:
        """Compare them one by one."""
        return self._all() == (other._all() if isinstance(other, Rows) else other)

    def __hash__(self) -> int:
        """Hash them all."""
        return hash(self._all())

    def __repr__(self) -> str:
        """Write them as the tuple that they are."""
        return repr(self._all())

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and pickled as that tuple."""
        return tuple, (self._all(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A model's parameters and multiply-accumulates, in total and row by row.

    Units: `params` counts elements, each tensor once; `bytes` is what a weights file must hold (parameters and
    persistent buffers); `macs` are core MACs of the whole batch; `elementwise` counts elements and is added to nothing.
    `exported` is the size of a file that was counted, 0 for a module. `inputs` are the shapes of what was fed,
    `signature` is that as `make_inputs` reads it.
    `unused` parameters were read by no operator of this forward; `method` is "meta", "fake" or "real".
    `active` parameters are those that work for one token: of a mixture of experts, as many as it chooses.
    `activations` is the bytes of all tensors that operators wrote, `peak` the most bytes alive at one moment, inputs
    included; both in the model's own types. The footprints are weights, activations and peak at other precisions.
    `work` and `elementwise_work` map (module path, operator) to MACs and elements, `operator_calls` an operator to its
    calls, `readers` a parameter's name to the operators that read it, and `shapes` a module that ran, in the order of
    calls, to what it took and returned at first, as 1x3x8x8. `modules` are the rows, made when they are first read: a
    CountError then if they do not sum to the totals.
    """

    model: str
    inputs: tuple[tuple[int, ...], ...]
    signature: tuple[str, ...] = ()
    method: str
    params: int
    trainable: int
    frozen: int
    unused: int
    bytes: int
    macs: int
    elementwise: int
    activations: int
    peak: int
    exported: int = 0
    weight_footprint: Footprint
    activation_footprint: Footprint
    peak_footprint: Footprint
    modules: Sequence[ModuleCost]
    work: Mapping[tuple[str, str], int] = field(default_factory=dict)
    elementwise_work: Mapping[tuple[str, str], int] = field(default_factory=dict)
    operator_calls: Mapping[str, int] = field(default_factory=dict)
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    unused_names: tuple[str, ...] = ()
    active: int = 0
    notes: tuple[str, ...] = ()
    convention: str = CONVENTION

    @property
    def flops(self) -> int:
        """Two for each multiply-accumulate."""
        return 2 * self.macs

    @property
    def shared(self) -> tuple[ModuleCost, ...]:
        """Rows of the tensors that more than one module owns."""
        return tuple(row for row in self.modules if row.owners)

    def subtree(self, path: str) -> ModuleCost:
        """Sum a module and everything below it, tensors shared with a module elsewhere left out.

        Errors: KeyError if no module has this path.
        """

        def is_inside(row: ModuleCost) -> bool:
            return not path or all(place == path or place.startswith(path + ".") for place in row.places)

        inside = list(filter(is_inside, self.modules))
        if not inside:
            raise KeyError(path)
        return total_of(inside, path=path, kind=inside[0].kind, calls=inside[0].calls)


def ancestors(path: str) -> list[str]:
    """List the paths of the modules around a module, the root's first; none for the root itself."""
    parts = path.split(".") if path else []
    return [".".join(parts[:end]) for end in range(len(parts))]


def total_of(rows: Sequence[ModuleCost], *, path: str, kind: str = "", calls: int = 0) -> ModuleCost:
    """Add rows up."""
    sums = {quantity: sum(getattr(row, quantity) for row in rows) for quantity in SUMMED}
    return ModuleCost(path=path, kind=kind, calls=calls, **sums)


def require_sums(rows: Sequence[Any], whole: Any, quantities: Sequence[str], *, what: str) -> None:
    """Refuse rows that do not sum to the whole.

    Errors: CountError.
    """
    for quantity in quantities:
        parts, total = sum(map(attrgetter(quantity), rows)), getattr(whole, quantity)
        if parts != total:
            raise CountError(f"{what} sum to {parts:,} {quantity}, not {total:,}: this is a bug in featherpress")


def sum_by_path(work: Mapping[tuple[str, str], int]) -> Counter[str]:
    """Add up the work of all operators of a module."""
    sums: Counter[str] = Counter()
    for (path, _), amount in work.items():
        sums[path] += amount
    return sums


def format_shapes(shapes: Sequence[Sequence[int]]) -> str:
    """Write the shapes of inputs as 1x3x640x640, 1x77; empty where there is none."""
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)
