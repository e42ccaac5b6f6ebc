"""What a run of the copy found, put together with what the model holds."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from featherpress.budgets.counting.attribution import Shapes
from featherpress.budgets.counting.costs import (
    ROOT,
    SUMMED,
    Cost,
    ModuleCost,
    Rows,
    format_shapes,
    require_sums,
    sum_by_path,
)
from featherpress.budgets.counting.dispatch import CountingMode
from featherpress.budgets.counting.formulas import FORMULAS
from featherpress.budgets.counting.forward import Subject
from featherpress.budgets.counting.inputs import Inputs, describe_inputs
from featherpress.budgets.counting.memory import Footprint
from featherpress.budgets.counting.storage_notes import note_storage
from featherpress.budgets.counting.tensors import Owned, TensorRows, Tree, rows_of


@lru_cache(maxsize=4096)
def _shapes(taken: Shapes, given: Shapes) -> tuple[str, str]:
    return format_shapes(taken), format_shapes(given)


def summarise(subject: Subject, rows: TensorRows, mode: CountingMode) -> Cost:
    """Put tensors and work together."""
    tree = subject.tree
    unused = set(rows.by_id) - mode.readers.keys()
    total, peak = mode.lifetimes.total(), mode.lifetimes.peak()
    owned = rows.owned(unused)
    params = sum(amount for _, amount, *_ in owned)
    trainable = sum(amount for _, amount, trained, *_ in owned if trained)
    first_name = {key: names[0] for key, names in rows.names.items()}
    active, measure = _count_active(rows, mode), rows.measure()
    whole: dict[str, Any] = {
        "params": params,
        "trainable": trainable,
        "frozen": params - trainable,
        "unused": sum(rows.elements[key] for key in unused),
        "bytes": measure(0),
        "macs": sum(mode.macs.values()),
        "elementwise": sum(mode.elementwise.values()),
        "activations": total(0),
    }
    name = type(tree[0][1]).__name__
    return Cost(
        model=name,
        inputs=subject.shapes,
        signature=describe_inputs(Inputs(*subject.inputs)),
        method=mode.method,
        **whole,
        peak=peak(0),
        weight_footprint=Footprint.of(measure),
        activation_footprint=Footprint.of(total),
        peak_footprint=Footprint.of(peak),
        modules=Rows(_maker(tree, owned, mode, ModuleCost(path=ROOT, **whole), name)),
        work=dict(mode.macs),
        elementwise_work=dict(mode.elementwise),
        operator_calls=dict(mode.calls),
        readers={first_name[key]: tuple(sorted(names)) for key, names in mode.readers.items()},
        shapes={path: _shapes(*mode.stack.shapes.get(path, ((), ()))) for path in mode.stack.calls},
        unused_names=tuple(first_name[key] for key in rows.by_id if key in unused),
        active=active,
        notes=(*_notes(mode), *_note_active(rows, mode, active), *note_storage(tree, rows)),
    )


def _count_active(rows: TensorRows, mode: CountingMode) -> int:
    """Take from each expert's parameters the share that is not chosen."""
    routed: Counter[tuple[int, int]] = Counter()
    for key in mode.routed & rows.by_id.keys():
        tensor = rows.by_id[key]
        fitting = [each for each in mode.choices if tensor.dim() == 3 and each[1] == len(tensor)] or mode.choices
        chosen, among = fitting[-1] if fitting else (1, 1)
        routed[chosen, among] += tensor.numel()
    idle = sum(held - held * chosen // among for (chosen, among), held in routed.items())
    return sum(rows.elements.values()) - idle


def _note_active(rows: TensorRows, mode: CountingMode, active: int) -> Iterator[str]:
    total = sum(rows.elements.values())
    if mode.routed & rows.by_id.keys() and not mode.choices:
        yield "how many experts a token goes to is not known: all count as active"
    if active != total:
        yield f"of {total:,} parameters {active:,} are active for one token: the experts that it goes to, and the rest"


def _notes(mode: CountingMode) -> Iterator[str]:
    """State what a reader of the numbers has to know."""
    for name, place in mode.value_dependent.items():
        yield f"{name} in {place} gives a result whose shape depends on values: {mode.dependence}"
    yield from mode.notes
    yield from mode.value_escapes.values()
    idle = [name for name, own in mode.table.items() if FORMULAS.get(name) is not own and name not in mode.calls]
    if idle:
        yield f"no operator runs that a formula is given for: {', '.join(idle)}"
    if mode.foreign_params:
        yield (
            f"{sum(mode.foreign_params.values()):,} parameters that the forward reads are not the model's and not "
            "counted: they are made there, or kept in a plain list or dictionary, where optimizers and weights files "
            "miss them"
        )


def _maker(
    tree: Tree, owned: Sequence[Owned], mode: CountingMode, whole: ModuleCost, name: str
) -> Callable[[], tuple[ModuleCost, ...]]:
    """Return what makes the rows and checks that they sum to the totals; it holds neither modules nor tensors."""
    modules = [(path, id(module), type(module).__name__) for path, module in tree]
    later = mode.stack.kinds
    work, calls, written = (mode.macs, mode.elementwise), mode.stack.calls, mode.lifetimes.written

    def make() -> tuple[ModuleCost, ...]:
        macs, elementwise = map(sum_by_path, work)
        sums: dict[str, Any] = {"macs": macs, "elementwise": elementwise, "activations": written()}
        sums["calls"] = Counter(calls)
        # A module with several paths has its row at the first; at another only if work was done there.
        first = {key: path for path, key, _ in reversed(modules)}
        paths = dict.fromkeys(chain((first[key] for _, key, _ in modules), calls, *sums.values()))
        kinds = {path: kind for path, _, kind in modules} | later
        left = rows_of(owned)
        rows = [
            ModuleCost(
                path=path,
                kind=kinds.get(path, ""),
                **{quantity: found[path] for quantity, found in sums.items()},
                **left.pop(path, {}),
            )
            for path in paths
        ]
        rows += [ModuleCost(path=path, **own) for path, own in left.items()]
        require_sums(rows, whole, SUMMED, what=f"the rows of {name}")
        return tuple(rows)

    return make
